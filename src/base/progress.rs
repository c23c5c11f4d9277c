//! What a run tells while it works. The library emits [`Event`]s; only the command line turns them into text.

use std::collections::HashSet;

/// One thing worth telling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A stage begins, for example "text" or "denoise", with `total` units of work (0: unknown).
    Begin {
        /// The stage.
        stage: Stage,
        /// Units of work: steps, rows of pixels, bytes.
        total: u64,
    },
    /// A stage that has just begun goes on from where an earlier run left it.
    Resume {
        /// The stage.
        stage: Stage,
        /// Units of work the earlier run did.
        done: u64,
    },
    /// A stage has come further: `done` units in all; `detail` is shown behind the bar (t and kappa, a file's name).
    Advance {
        /// The stage.
        stage: Stage,
        /// Units of work done so far.
        done: u64,
        /// A few words for the bar.
        detail: String,
    },
    /// A stage is over; `detail` says what it made.
    End {
        /// The stage.
        stage: Stage,
        /// A few words for the line.
        detail: String,
    },
    /// Something that only those want to know who ask for detail.
    Detail(String),
    /// Something the user may want to know.
    Note(String),
    /// Something the user should know; it carries its own advice.
    Warning(String),
}

/// The stages of a run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Files come from the Hub; units are bytes.
    Download,
    /// Prompts become embeddings; units are layers of the text encoders.
    Text,
    /// A picture becomes latents; units are whatever the encoder counts.
    Encode,
    /// Noise becomes latents; units are steps.
    Denoise,
    /// Latents become pixels; units are whatever the decoder counts.
    Decode,
    /// Weights become a file in another number type; units are bytes.
    Convert,
}

/// Whoever listens to a run.
pub trait Observer: Send + Sync {
    /// Called at each event, from the thread that works; it must return quickly.
    fn on(&self, event: Event);
}

/// Tells notes, each once, however many pictures one holds for.
pub struct Once<'a> {
    observer: &'a dyn Observer,
    told: HashSet<String>,
}

impl<'a> Once<'a> {
    /// To this observer, which has heard none.
    pub fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, told: HashSet::new() }
    }

    /// Tells a note that has not been told.
    pub fn note(&mut self, note: String) {
        if self.told.insert(note.clone()) {
            self.observer.on(Event::Note(note));
        }
    }
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&self, _event: Event) {}
}
