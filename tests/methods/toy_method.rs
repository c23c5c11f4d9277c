//! A method that the program does not know, in one file: all that reads methods takes it as it takes its own.

use std::sync::Mutex;

use candle_core::{DType, Device};
use dype::testing::{
    base::{
        geometry::{ImageSize, TokenGrid},
        progress::Silent,
    },
    lab::{InspectSettings, inspect, save_plot},
    methods::{
        AxisFrequencies, Knobs, Looks, Method, MethodSpec, Moment, PositionScaler, RotaryAxis, Side, Spectrum,
        TextBias, label,
    },
    models::{
        Model, ModelRequest,
        flux1::{FluxConfig, LATENTS},
    },
    nn::{CodeProducts, RopeTables},
    plan::{Machine, Plan, Task},
    recipe::{Recipe, Wanted},
    run::pipeline::Pipeline,
    sampling::Progress,
};

/// Both axes slowed by the longer side's scale to the power t, and text kept as strong as the picture is large.
struct Slowed;

impl Slowed {
    const SPEC: MethodSpec = MethodSpec {
        name: "slowed",
        help: "both axes slowed alike, by the longer side's scale to the power t",
        dype: None,
        knobs: &[],
        scaler: |_| Box::new(Self),
    };
    const METHOD: Method = Method::new(&Self::SPEC);
}

impl PositionScaler for Slowed {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Time
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let slower = axis.longest().max(1.0).powf(at.t);
        let inv_freq = axis.native().into_iter().map(|native| native / slower).collect();
        AxisFrequencies { inv_freq, amplitude: vec![1.0; axis.pairs()] }
    }

    fn key_bias(&self, axes: &[RotaryAxis; 2], at: &Moment) -> Option<TextBias> {
        let larger: f64 = axes.iter().map(RotaryAxis::scale).product();
        (larger > 1.0).then(|| TextBias(at.t * larger.ln()))
    }
}

fn inspected(height: usize, width: usize) -> InspectSettings {
    InspectSettings {
        method: Slowed::METHOD,
        dype: None,
        knobs: Knobs::default(),
        proportional_with: None,
        size: ImageSize::new(height, width).expect("valid"),
        geometry: LATENTS,
        base_resolution_px: 1024,
        axes_dim: [16, 56, 56],
        theta: 10_000.0,
        mu: None,
        t: vec![1.0, 0.5, 0.0],
        spectrum: None,
    }
}

#[test]
fn it_is_inspected_and_plotted() {
    let inspection = inspect(&inspected(2048, 1024)).expect("valid");
    assert_eq!(inspection.method, "slowed");
    assert!(inspection.title().starts_with("slowed, moving with t, 2048 x 1024 px"), "{}", inspection.title());
    for step in &inspection.steps {
        let [height, width] = step.axes.each_ref().map(|axis| axis.inv_freq[0]);
        assert_eq!(height, width, "the shorter side is slowed as the longer one is");
        assert!((height - 0.5f64.powf(step.t)).abs() < 1e-15, "t = {}: {height}", step.t);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("slowed.png");
    save_plot(&inspection, &path).expect("drawn");
    assert!(image::open(path).expect("a picture").width() > 1000);
}

#[test]
fn its_tables_turn_every_token() {
    let config = FluxConfig { base_resolution: Some(32), ..FluxConfig::flux1_dev() };
    let grid = TokenGrid { height_patches: 4, width_patches: 3 };
    let scaler = Slowed::METHOD.scaler(None);
    assert_eq!(scaler.spec().name, Slowed::METHOD.name());
    let tables = RopeTables::new(
        &config.position_ids(grid, 2),
        config.base_patches(),
        scaler.as_ref(),
        &Moment::at(1.0),
        &Device::Cpu,
    )
    .expect("tables");
    let sines: Vec<Vec<f32>> = tables.sin.to_vec2().expect("f32");
    // Text, then (0, 0), (0, 1), (0, 2), (1, 0): the fastest pair of the rows is the ninth of all, of the columns the 37th.
    assert_eq!([sines[0][8], sines[1][36], sines[2][8]], [0.0; 3]);
    assert_eq!([sines[4][36], sines[5][8]], [1.0f64.sin() as f32, 0.5f64.sin() as f32]);
}

#[test]
fn its_bias_follows_picture_and_time() {
    let axes = |side| RotaryAxis::of_picture([56; 2], 10_000.0, 64, [side; 2]);
    let scaler = Slowed::METHOD.scaler(None);
    assert_eq!(scaler.key_bias(&axes(256), &Moment::at(0.5)), Some(TextBias(0.5 * 16f64.ln())));
    assert_eq!(scaler.key_bias(&axes(64), &Moment::at(0.5)), None);
    for own in Method::ALL {
        assert_eq!(own.scaler(None).key_bias(&axes(256), &Moment::at(1.0)), None, "{own} leaves text as it is");
    }
}

#[test]
fn names_of_pictures_and_equality_follow_its_spec() {
    assert_eq!(label(Slowed::METHOD.name(), false), "slowed");
    assert_ne!(Slowed::METHOD, Method::YARN);
    assert_eq!(Slowed::METHOD.to_string().parse::<Method>().expect_err("not in the registry").kind, "method");
    let spectrum = Spectrum { height: vec![1.0], width: vec![1.0], rings: vec![1.0] };
    let at = Moment { spectrum: Some(&spectrum), ..Moment::at(0.0) };
    let [axis, _] = RotaryAxis::of_picture([4; 2], 100.0, 1, [2; 2]);
    assert_eq!(Slowed::METHOD.scaler(None).frequencies(&axis, &at).inv_freq, axis.native());
}

/// Native everywhere, and keeps count of what it is shown.
struct Watching;

/// Step, t, and bins of the spectrum along both sides and over rings, of each question.
static SHOWN: Mutex<Vec<(usize, f64, [usize; 3])>> = Mutex::new(Vec::new());

impl Watching {
    const SPEC: MethodSpec =
        MethodSpec { name: "watching", help: "native", dype: None, knobs: &[], scaler: |_| Box::new(Self) };
}

impl PositionScaler for Watching {
    fn spec(&self) -> &'static MethodSpec {
        &Self::SPEC
    }

    fn looks(&self) -> Looks {
        Looks::Spectrum
    }

    fn frequencies(&self, axis: &RotaryAxis, at: &Moment) -> AxisFrequencies {
        let spectrum = at.spectrum.expect("it looks at the spectrum");
        let bins = [spectrum.along(Side::Height), spectrum.along(Side::Width), &spectrum.rings];
        assert!(bins.iter().flat_map(|bins| bins.iter()).all(|power| *power > 0.0), "{spectrum:?}");
        if axis.side == Side::Height {
            SHOWN.lock().expect("nobody panicked").push((at.step, at.t, bins.map(<[f64]>::len)));
        }
        AxisFrequencies { inv_freq: axis.native(), amplitude: vec![1.0; axis.pairs()] }
    }
}

/// The latents of three steps of a small picture by a method.
fn latents_of(method: Method) -> Vec<f32> {
    let model = crate::support::flux1(&ModelRequest::new(crate::support::fixture("tiny-flux"))).expect("tiny-flux");
    let pipeline = Pipeline::open(&model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let wanted = Wanted { height: Some(128), width: Some(64), steps: Some(3), ..Wanted::default() };
    let mut recipe = Recipe::new(&wanted, &model.facts().recipe).expect("in range");
    recipe.method = method;
    let task = Task::new(recipe.size(), recipe.steps, 16);
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let choices = Plan::new(&model, &task, &machine).expect("fits").choices;
    let text = pipeline.encode(&["a lake"], 16).expect("encodes").remove(0);
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let start = Progress::start(pipeline.noise(&recipe).expect("noise"));
    crate::support::values(
        &pipeline.denoise(&*transformer, (&recipe, 0), &text.into(), start, &mut |_| Ok(())).expect("denoises"),
    )
}

#[test]
fn a_method_that_looks_at_the_spectrum_is_shown_that_of_every_step() {
    let watched = latents_of(Method::new(&Watching::SPEC));
    let shown = SHOWN.lock().expect("nobody panicked").clone();
    assert_eq!(
        shown.iter().map(|(step, _, bins)| (*step, *bins)).collect::<Vec<_>>(),
        [0, 1, 2].map(|step| (step, [4, 2, 4]))
    );
    assert!(shown.windows(2).all(|pair| pair[1].1 < pair[0].1), "t falls: {shown:?}");
    assert_eq!(watched, latents_of(Method::BASE), "native is native");
}

/// Native everywhere; text is attended to by this much more.
struct Loud(f64);

impl Loud {
    const SILENT: MethodSpec =
        MethodSpec { name: "silent", help: "native", dype: None, knobs: &[], scaler: |_| Box::new(Self(0.0)) };
    const LOUD: MethodSpec =
        MethodSpec { name: "loud", help: "text louder", dype: None, knobs: &[], scaler: |_| Box::new(Self(3.0)) };
}

impl PositionScaler for Loud {
    fn spec(&self) -> &'static MethodSpec {
        if self.0 == 0.0 { &Self::SILENT } else { &Self::LOUD }
    }

    fn looks(&self) -> Looks {
        Looks::Nothing
    }

    fn frequencies(&self, axis: &RotaryAxis, _: &Moment) -> AxisFrequencies {
        AxisFrequencies { inv_freq: axis.native(), amplitude: vec![1.0; axis.pairs()] }
    }

    fn key_bias(&self, _: &[RotaryAxis; 2], _: &Moment) -> Option<TextBias> {
        Some(TextBias(self.0))
    }
}

#[test]
fn a_methods_key_bias_reaches_the_attention() {
    let plain = latents_of(Method::BASE);
    assert!(crate::support::relative_error(&latents_of(Method::new(&Loud::SILENT)), &plain) < 1e-6);
    assert!(crate::support::relative_error(&latents_of(Method::new(&Loud::LOUD)), &plain) > 1e-4);
}
