//! Streams and events: what waits, and what may run next. Between calls nothing need have happened; only events, waits and
//! the rules of the default stream promise an order. Source: CUDA driver API, "Stream synchronization behavior".

use std::collections::{BTreeMap, VecDeque};

use super::work::Work;

/// The legacy default stream, which blocking streams wait for and which waits for them.
pub const LEGACY: u64 = 1;

/// An operation, and what must be done before it.
#[derive(Debug)]
pub struct Op {
    /// What it is.
    pub work: Work,
    /// So many operations of other streams come first.
    after: Vec<(u64, u64)>,
    /// When it was asked for, in simulated seconds.
    asked_at: f64,
}

/// A stream.
#[derive(Debug, Default)]
struct Stream {
    blocking: bool,
    queue: VecDeque<Op>,
    /// Operations done, and asked for, since it began.
    done: u64,
    asked: u64,
    /// When its last operation ended, in simulated seconds.
    clock: f64,
}

/// An event.
#[derive(Debug, Default, Clone, Copy)]
struct Event {
    asked: u64,
    done: u64,
    clock: f64,
}

/// All streams and events of a device.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<u64, Stream>,
    events: BTreeMap<u64, Event>,
    next: u64,
}

impl Streams {
    /// A new handle; they are never used twice.
    pub fn handle(&mut self) -> u64 {
        self.next += 1;
        0x1000 + self.next
    }

    /// Makes a stream known.
    pub fn open(&mut self, stream: u64, blocking: bool) {
        self.streams.entry(stream).or_default().blocking = blocking;
    }

    /// Whether it is known.
    pub fn knows(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Makes an event known.
    pub fn open_event(&mut self, event: u64) {
        self.events.insert(event, Event::default());
    }

    /// Forgets an event.
    pub fn close_event(&mut self, event: u64) {
        self.events.remove(&event);
    }

    /// Whether it is known.
    pub fn knows_event(&self, event: u64) -> bool {
        self.events.contains_key(&event)
    }

    /// Queues an operation that is asked for at this time; gives its number on its stream.
    pub fn ask(&mut self, stream: u64, work: Work, asked_at: f64) -> u64 {
        let mut after = Vec::new();
        let blocking = self.streams.get(&stream).is_some_and(|stream| stream.blocking);
        for (other, state) in &self.streams {
            let rule = (stream == LEGACY && state.blocking) || (blocking && *other == LEGACY);
            if *other != stream && rule && state.done < state.asked {
                after.push((*other, state.asked));
            }
        }
        let stream = self.streams.entry(stream).or_default();
        stream.queue.push_back(Op { work, after, asked_at });
        stream.asked += 1;
        stream.asked
    }

    /// Records an event on a stream, and gives which recording this is.
    pub fn record(&mut self, event: u64) -> u64 {
        let event = self.events.entry(event).or_default();
        event.asked += 1;
        event.asked
    }

    /// The recording that a wait for this event means now.
    pub fn recorded(&self, event: u64) -> u64 {
        self.events.get(&event).map_or(0, |event| event.asked)
    }

    /// Whether this recording has been reached.
    pub fn reached(&self, event: u64, recording: u64) -> bool {
        self.events.get(&event).is_none_or(|event| event.done >= recording)
    }

    /// A recording is reached at this time.
    pub fn reach(&mut self, event: u64, recording: u64, clock: f64) {
        if let Some(event) = self.events.get_mut(&event) {
            event.done = event.done.max(recording);
            event.clock = clock;
        }
    }

    /// When an event was reached last.
    pub fn event_clock(&self, event: u64) -> f64 {
        self.events.get(&event).map_or(0.0, |event| event.clock)
    }

    /// Whether so many operations of a stream are done.
    pub fn done(&self, stream: u64, number: u64) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.done >= number)
    }

    /// Operations asked for on a stream so far.
    pub fn asked(&self, stream: u64) -> u64 {
        self.streams.get(&stream).map_or(0, |stream| stream.asked)
    }

    /// Streams whose first operation may run.
    pub fn ready(&self) -> Vec<u64> {
        let ready = |stream: &Stream| {
            stream.queue.front().is_some_and(|op| {
                let ordered = op.after.iter().all(|(other, number)| self.done(*other, *number));
                ordered && op.work.awaits().is_none_or(|(event, recording)| self.reached(event, recording))
            })
        };
        self.streams.iter().filter(|(_, stream)| ready(stream)).map(|(name, _)| *name).collect()
    }

    /// Takes the first operation of a stream, and when it can begin.
    pub fn take(&mut self, stream: u64) -> Option<(Work, f64)> {
        let op = self.streams.get_mut(&stream)?.queue.pop_front()?;
        let others = op.after.iter().filter_map(|(other, _)| Some(self.streams.get(other)?.clock));
        let event = op.work.awaits().map(|(event, _)| self.event_clock(event));
        let own = self.streams.get(&stream)?.clock;
        let begin = others.chain(event).fold(own.max(op.asked_at), f64::max);
        Some((op.work, begin))
    }

    /// An operation of a stream ended at this time.
    pub fn finish(&mut self, stream: u64, clock: f64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.done += 1;
            stream.clock = clock;
        }
    }

    /// When a stream's last operation ended.
    pub fn clock(&self, stream: u64) -> f64 {
        self.streams.get(&stream).map_or(0.0, |stream| stream.clock)
    }

    /// When the last operation of all ended.
    pub fn last_clock(&self) -> f64 {
        self.streams.values().fold(0.0, |last, stream| stream.clock.max(last))
    }

    /// Operations that wait.
    pub fn waiting(&self) -> usize {
        self.streams.values().map(|stream| stream.queue.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Streams, u64, u64) {
        let mut streams = Streams::default();
        let (a, b) = (streams.handle(), streams.handle());
        streams.open(LEGACY, false);
        streams.open(a, false);
        streams.open(b, false);
        (streams, a, b)
    }

    fn run(streams: &mut Streams, stream: u64) {
        let (work, at) = streams.take(stream).unwrap();
        if let Work::Record { event, recording } = work {
            streams.reach(event, recording, at + 1.0);
        }
        streams.finish(stream, at + 1.0);
    }

    #[test]
    fn a_wait_means_the_recording_before_it() {
        let (mut streams, a, b) = two();
        let event = streams.handle();
        streams.open_event(event);
        // Nothing was recorded: nothing is waited for.
        let recording = streams.recorded(event);
        streams.ask(b, Work::Wait { event, recording }, 0.0);
        assert_eq!(streams.ready(), [b]);
        run(&mut streams, b);
        let recording = streams.record(event);
        streams.ask(a, Work::Record { event, recording }, 0.0);
        streams.ask(b, Work::Wait { event, recording }, 0.0);
        assert_eq!(streams.ready(), [a]);
        run(&mut streams, a);
        assert_eq!(streams.ready(), [b]);
        // Recorded again: the wait that was asked for before does not wait for that.
        streams.record(event);
        assert_eq!(streams.ready(), [b]);
    }

    #[test]
    fn blocking_streams_and_the_default_stream_wait_for_each_other_and_others_do_not() {
        let (mut streams, a, b) = two();
        streams.open(a, true);
        streams.ask(a, Work::Nothing, 0.0);
        streams.ask(b, Work::Nothing, 0.0);
        streams.ask(LEGACY, Work::Nothing, 0.0);
        streams.ask(a, Work::Nothing, 0.0);
        assert_eq!(streams.ready(), [a, b]);
        run(&mut streams, a);
        assert_eq!(streams.ready(), [LEGACY, b]);
        run(&mut streams, LEGACY);
        assert_eq!(streams.ready(), [a, b]);
        assert_eq!(streams.waiting(), 2);
    }
}
