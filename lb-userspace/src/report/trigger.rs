//! The last change before it began. It need not be why: that is another question.

use super::{
    Fact, TriggerPart,
    material::{Last, Material},
    references::References,
    span, time,
};
use crate::journal::Record;

/// Most backends whose slots are told.
const SLOTS: usize = 20;

/// The last publication before the start.
pub(super) fn trigger(of: &Material, refs: &mut References) -> Option<TriggerPart> {
    let publication = of.before.publication.as_ref()?;
    let start_ms = of.scope.start_ms().unwrap_or(of.scope.from_ms);
    let mut ids = vec![refs.row(publication)];
    let wish = of.before.wish.as_ref();
    ids.extend(wish.map(|row| refs.row(row)));
    let who = wish.map_or(&publication.actor, |row| &row.actor);
    let age = start_ms.saturating_sub(publication.at_ms);
    let audit = of.before.audit.as_ref().map(|row| {
        let id = refs.row(row);
        Fact::new(format!("{} ({})", row.message, time(row.at_ms)), vec![id])
    });
    Some(TriggerPart {
        text: format!("{}; {} before the start", publication.message, span(age)),
        at_ms: publication.at_ms,
        who: who.clone(),
        why: whys(&of.before),
        difference: difference(of, publication, refs),
        generation: publication.generation,
        audit,
        refs: ids,
    })
}

/// Why there was a publication: what somebody did, and else what the controller noted.
pub(super) fn whys(of: &Last) -> Vec<String> {
    let publication = of.publication.iter();
    let noted = publication.flat_map(|row| row.detail["why"].as_array().into_iter().flatten());
    let mut whys: Vec<String> = noted
        .filter_map(|why| why.as_str().map(ToOwned::to_owned))
        .collect();
    if let Some(wish) = &of.wish
        && !whys.contains(&wish.message)
    {
        whys.insert(0, wish.message.clone());
    }
    whys
}

/// Whose slots became how many.
fn difference(of: &Material, publication: &Record, refs: &mut References) -> Vec<Fact> {
    let moved = publication.detail["slots"].as_array().into_iter().flatten();
    let line = |moved: &serde_json::Value| {
        let (service, backend) = (moved["service"].as_str()?, moved["backend"].as_str()?);
        let (before, after) = (moved["before"].as_u64()?, moved["after"].as_u64()?);
        of.scope
            .holds(Some(service))
            .then(|| format!("{service}/{backend}: {before} slots before, {after} afterwards"))
    };
    let mut lines: Vec<String> = moved.filter_map(line).collect();
    let more = lines.len().saturating_sub(SLOTS);
    lines.truncate(SLOTS);
    if more > 0 {
        lines.push(format!("{more} more backends"));
    }
    lines
        .into_iter()
        .map(|line| Fact::new(line, vec![refs.row(publication)]))
        .collect()
}
