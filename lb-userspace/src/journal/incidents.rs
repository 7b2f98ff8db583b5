//! Incidents in the journal, which is where they are kept.

use std::path::Path;

use super::{Error, Event, Filter, Kind, Level, Reader};
use crate::incident::{Book, Step, What};

/// Steps that are read again: more than a journal's time holds.
const MOST: u32 = 100_000;

/// A step as an event.
#[must_use]
pub fn event(at_ms: u64, step: &Step) -> Event {
    let level = match step.step {
        What::Open | What::Relapse => Level::Error,
        What::Alert => Level::Warning,
        What::Mitigated | What::Ack | What::Note | What::Close => Level::Info,
    };
    let event = Event::of_controller(at_ms, Kind::Incident, level, step.describe()).detail(step);
    Event {
        service: step.service.clone(),
        actor: step.by.clone(),
        ..event
    }
}

/// The incidents of a state directory's journal.
///
/// # Errors
/// Where there is no journal, or it cannot be read.
pub fn read(directory: &Path, now_ms: u64) -> Result<Book, Error> {
    let filter = Filter {
        kind: Some(Kind::Incident.word().to_owned()),
        ..Filter::default()
    };
    let records = Reader::open(directory)?.last(&filter, MOST)?;
    let told = records.iter().map(|record| (record.at_ms, &record.detail));
    Ok(Book::read(now_ms, told))
}
