//! What the user may want to know before the work begins.

use std::collections::HashSet;

use super::{items::Planned, report::Report};
use crate::{
    base::geometry::LatentGeometry,
    base::progress::{Event, Observer},
    run::Item,
};

/// Tells each note once, however many pictures it holds for.
pub fn tell(planned: &[Planned], items: &[Item], geometry: &LatentGeometry, report: &Report) {
    let mut told = HashSet::new();
    for (planned, item) in planned.iter().zip(items) {
        for note in
            [cropped(item, geometry), no_effect(item, geometry), no_guidance(planned, item)].into_iter().flatten()
        {
            if told.insert(note.clone()) {
                report.on(Event::Note(note));
            }
        }
    }
}

fn cropped(item: &Item, geometry: &LatentGeometry) -> Option<String> {
    let size = item.request.size;
    let computed = geometry.computed(size);
    (computed != size).then(|| {
        format!(
            "{} x {} px is computed as {} x {} (multiples of {}) and cropped",
            size.height_px,
            size.width_px,
            computed.height_px,
            computed.width_px,
            geometry.px_per_token()
        )
    })
}

fn no_effect(item: &Item, geometry: &LatentGeometry) -> Option<String> {
    let settings = &item.settings;
    let computed = geometry.computed(item.request.size);
    let longest = computed.height_px.max(computed.width_px);
    (settings.method != "base" && longest <= settings.base_resolution).then(|| {
        let what = if settings.dype { "DyPE has" } else { "extrapolation has" };
        format!(
            "{what} no effect at this size with --method {}: no side exceeds the training resolution of {} px",
            settings.method, settings.base_resolution
        )
    })
}

fn no_guidance(planned: &Planned, item: &Item) -> Option<String> {
    (item.settings.guidance.is_none() && planned.wish.guidance_given)
        .then(|| "this model takes no guidance: --guidance is ignored".into())
}
