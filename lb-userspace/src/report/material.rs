//! What a report is made from, read from the state directory: no controller need run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::references::{Noted, Source};
use crate::{
    history::{self, SPANS, Span, chunk::Sample},
    incident::{Book, Incident, What},
    journal::{self, Filter, Kind, NO_FLOWS_LEFT, Reader, Record, WINDOW_OVER},
    kept::configurations::texts,
    model::AlertName,
};

/// How long before an incident a report begins, in milliseconds.
const BEFORE: u64 = 600_000;
/// How long after its end it goes on.
const AFTER: u64 = 300_000;
/// Most events of a report.
const EVENTS: u32 = 20_000;
/// Steps of incidents that are looked at.
const STEPS: u32 = 100_000;
/// Most services of a report that is about no single one.
const SERVICES: usize = 8;
/// Alerts that the controller answers with a publication of its own.
const ANSWERED: [AlertName; 7] = [
    AlertName::BackendDown,
    AlertName::BackendDemoted,
    AlertName::BackendSlow,
    AlertName::BackendFailing,
    AlertName::NoBackends,
    AlertName::Panic,
    AlertName::FleetDegraded,
];
/// How soon it does, in milliseconds.
const AT_ONCE: u64 = 50;
/// What may not be written yet, in milliseconds.
const UNWRITTEN: u64 = 10_000;

/// What a report is to be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The incident that was opened last.
    Latest,
    /// An incident.
    Incident(String),
    /// All incidents of a time, in milliseconds since the Unix epoch, or none.
    Window {
        /// From then on.
        from_ms: u64,
        /// Until just before then.
        until_ms: u64,
    },
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to report of.
    #[error(
        "no incident is known: give a time with '--since' and '--until', or open one with 'evenkeel \
         incident open'"
    )]
    NoIncident,
    /// There is no such incident.
    #[error("there is no incident {0}: 'evenkeel incident list --all' shows all that are known")]
    Unknown(String),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// History cannot be read.
    #[error(transparent)]
    History(#[from] history::Error),
}

/// An incident with the events that make it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The incident.
    pub incident: Incident,
    /// Its steps, in order.
    pub steps: Vec<Record>,
}

impl Told {
    /// What became of it by a step.
    fn what(step: &Record) -> Option<What> {
        serde_json::from_value(step.detail["step"].clone()).ok()
    }

    /// The first step of a kind.
    pub(super) fn first(&self, what: What) -> Option<&Record> {
        self.steps.iter().find(|of| Self::what(of) == Some(what))
    }

    /// The last step of a kind.
    pub(super) fn last(&self, what: What) -> Option<&Record> {
        self.steps.iter().rfind(|of| Self::what(of) == Some(what))
    }

    /// The step that ended what was wrong, where that lasts.
    pub(super) fn end(&self) -> Option<&Record> {
        match self.incident.mitigated_ms {
            Some(_) => self.last(What::Mitigated),
            None => self.last(What::Close),
        }
    }
}

/// What a report covers.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// From then on, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Until just before then.
    pub until_ms: u64,
    /// The incidents, the oldest first.
    pub incidents: Vec<Told>,
    /// The services whose backends are shown, by name; of the incidents where they name any.
    pub services: Vec<String>,
}

impl Scope {
    /// When what is reported began.
    pub(super) fn start_ms(&self) -> Option<u64> {
        self.incidents.iter().map(|of| of.incident.start_ms).min()
    }

    /// When all of it was over; absent where it is not.
    pub(super) fn end_ms(&self) -> Option<u64> {
        let ends: Option<Vec<u64>> = self
            .incidents
            .iter()
            .map(|of| Some(of.end()?.at_ms))
            .collect();
        ends?.into_iter().max()
    }

    /// Whether a service is one of those that it is about.
    pub(super) fn holds(&self, service: Option<&str>) -> bool {
        service.is_none_or(|name| self.services.iter().any(|own| own == name))
    }
}

/// History of a service, as fine as it is kept for that time.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The service.
    pub service: String,
    /// From one point to the next, in seconds.
    pub step_s: u64,
    /// The points, in order, by their beginning in seconds since the Unix epoch.
    pub points: Vec<(u64, Sample)>,
}

impl Past {
    /// The points of a time.
    pub(super) fn within(&self, from_ms: u64, until_ms: u64) -> impl Iterator<Item = &Sample> {
        let within = move |at_s: u64| (from_ms..until_ms).contains(&(at_s * 1000));
        let points = self.points.iter();
        points
            .filter(move |(at_s, _)| within(*at_s))
            .map(|(_, sample)| sample)
    }
}

/// What happened last before something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Last {
    /// The publication.
    pub publication: Option<Record>,
    /// What somebody did that it came of.
    pub wish: Option<Record>,
    /// The audit.
    pub audit: Option<Record>,
}

impl Last {
    /// When the publication was, where it is what the controller did about a backend at the start, and
    /// not what led to that.
    fn answer_at(&self, start_ms: u64, scope: &Scope) -> Option<u64> {
        let publication = self.publication.as_ref()?;
        let mut first = scope.incidents.iter().filter_map(|of| of.first(What::Open));
        let is_answered = |step: &Record| {
            let mut signs = super::header::signs(step).into_iter();
            signs.any(|sign| ANSWERED.iter().any(|name| name.word() == sign.name))
        };
        let at_once = publication.at_ms + AT_ONCE >= start_ms;
        (self.wish.is_none() && at_once && first.any(is_answered)).then_some(publication.at_ms)
    }
}

/// All that a report is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Material {
    /// The present, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What makes the report.
    pub made_by: String,
    /// Whether clients' addresses are whole.
    pub with_clients: bool,
    /// What it covers.
    pub scope: Scope,
    /// All events of that time, in order.
    pub rows: Vec<Record>,
    /// What happened last before the start.
    pub before: Last,
    /// What happened last before the end, and after the start.
    pub mended: Last,
    /// The last start of a controller.
    pub start: Option<Record>,
    /// The last change of the configuration.
    pub change: Option<Record>,
    /// What the backends took.
    pub history: Vec<Past>,
    /// What is missing, in words.
    pub gaps: Vec<String>,
}

impl Material {
    /// Reads it from a state directory.
    ///
    /// # Errors
    /// Where there is nothing to report of, or the journal or history cannot be read.
    pub fn read(
        directory: &Path,
        wanted: &Wanted,
        with_clients: bool,
        (now_ms, made_by): (u64, String),
    ) -> Result<Self, Error> {
        let journal = Reader::open(directory)?;
        let mut gaps = Vec::new();
        let mut scope = scope(&journal, wanted, now_ms)?;
        let window = Filter {
            since_ms: Some(scope.from_ms),
            until_ms: Some(scope.until_ms),
            ..Filter::default()
        };
        let rows = journal.last(&window, EVENTS)?;
        if rows.len() == EVENTS as usize {
            gaps.push(format!(
                "there are more than {EVENTS} events: the oldest are left out"
            ));
        }
        if scope.until_ms + UNWRITTEN > now_ms {
            gaps.push("the last ten seconds of history may not be written yet".to_owned());
        }
        let reader = match history::Reader::open(directory) {
            Ok(reader) => Some(reader),
            Err(history::Error::Missing(_)) => {
                gaps.push("there is no history: what the backends took is not known".to_owned());
                None
            }
            Err(other) => return Err(other.into()),
        };
        let known = reader
            .as_ref()
            .map_or(Ok(Vec::new()), history::Reader::services)?;
        services(&mut scope, &rows, &known, &mut gaps);
        let mut past = Vec::new();
        for service in &scope.services {
            let Some(reader) = &reader else { break };
            past.extend(taken(reader, service, &scope, now_ms)?);
        }
        // A time without an incident may have had a skew, which was told right behind its publication.
        let skewed = rows
            .iter()
            .find(|row| row.kind == "evenness" && row.detail["verdict"] == "skewed");
        let skewed_ms = skewed
            .map(|row| row.at_ms)
            .filter(|_| scope.incidents.is_empty());
        let start_ms = scope.start_ms().or(skewed_ms).unwrap_or(scope.from_ms);
        let mut before = last(&journal, 0, start_ms + 1)?;
        if let Some(answer) = before.answer_at(start_ms, &scope) {
            before = last(&journal, 0, answer)?;
        }
        let mended = match scope.end_ms().or(skewed_ms.map(|_| scope.until_ms)) {
            Some(end_ms) => last(&journal, start_ms + 1, end_ms + 1)?,
            None => Last::default(),
        };
        let one = |kind: Kind| {
            let of = of_kind(kind, 0, scope.until_ms);
            Ok::<_, Error>(journal.last(&of, 1)?.pop())
        };
        let (start, change) = (one(Kind::Start)?, one(Kind::Change)?);
        let mut material = Self {
            now_ms,
            made_by,
            with_clients,
            scope,
            rows,
            before,
            mended,
            start,
            change,
            history: past,
            gaps,
        };
        if !with_clients {
            material.redact(&texts(directory));
        }
        Ok(material)
    }
}

fn of_kind(kind: Kind, since_ms: u64, until_ms: u64) -> Filter {
    Filter {
        since_ms: Some(since_ms),
        until_ms: Some(until_ms),
        kind: Some(kind.word().to_owned()),
        ..Filter::default()
    }
}

/// What is to be reported of, and of which time.
fn scope(journal: &Reader, wanted: &Wanted, now_ms: u64) -> Result<Scope, Error> {
    let steps = journal.last(&of_kind(Kind::Incident, 0, u64::MAX >> 1), STEPS)?;
    let book = Book::read(now_ms, steps.iter().map(|row| (row.at_ms, &row.detail)));
    let of = |incident: &Incident| Told {
        incident: incident.clone(),
        steps: steps
            .iter()
            .filter(|row| row.detail["id"] == incident.id.as_str())
            .cloned()
            .collect(),
    };
    let single = match wanted {
        Wanted::Window { from_ms, until_ms } => {
            let overlaps = |incident: &&Incident| {
                incident.start_ms < *until_ms && incident.closed_ms.is_none_or(|at| at >= *from_ms)
            };
            return Ok(Scope {
                from_ms: *from_ms,
                until_ms: *until_ms,
                incidents: book.all().iter().filter(overlaps).map(of).collect(),
                services: Vec::new(),
            });
        }
        Wanted::Latest => book.all().last().ok_or(Error::NoIncident)?,
        Wanted::Incident(id) => book.named(id).ok_or_else(|| Error::Unknown(id.clone()))?,
    };
    let end = single.closed_ms.max(single.mitigated_ms);
    let end = end.filter(|_| single.closed_ms.is_some());
    Ok(Scope {
        from_ms: single.start_ms.saturating_sub(BEFORE),
        until_ms: end.map_or(now_ms, |at| (at + AFTER).min(now_ms)) + 1,
        incidents: vec![of(single)],
        services: Vec::new(),
    })
}

/// Finds the services that a report is about: those of the incidents; else those that events of its
/// time name; else all.
fn services(scope: &mut Scope, rows: &[Record], known: &[String], gaps: &mut Vec<String>) {
    let of_incidents = scope.incidents.iter();
    let own: BTreeSet<String> = of_incidents
        .filter_map(|of| of.incident.service.clone())
        .collect();
    if !own.is_empty()
        && scope
            .incidents
            .iter()
            .all(|of| of.incident.service.is_some())
    {
        scope.services = own.into_iter().collect();
        return;
    }
    let mut events: BTreeMap<&String, usize> = BTreeMap::new();
    for name in rows.iter().filter_map(|row| row.service.as_ref()) {
        *events.entry(name).or_default() += 1;
    }
    let mut all: Vec<&String> = known.iter().collect();
    let rank = |name: &&String| {
        let count = events.get(*name).copied().unwrap_or(0);
        (!own.contains(*name), std::cmp::Reverse(count))
    };
    all.sort_by_key(rank);
    if all.len() > SERVICES {
        gaps.push(format!(
            "{} services are left out, of which less is told",
            all.len() - SERVICES
        ));
    }
    scope.services = all.into_iter().take(SERVICES).cloned().collect();
}

/// History of a service, from the finest span that has any of the whole time.
fn taken(
    reader: &history::Reader,
    service: &str,
    scope: &Scope,
    now_ms: u64,
) -> Result<Option<Past>, Error> {
    let (from_s, until_s) = (scope.from_ms / 1000, scope.until_ms.div_ceil(1000));
    let back_s = (now_ms / 1000).saturating_sub(from_s);
    let finest = Span::reaching(back_s, 1).step_s;
    for span in SPANS.into_iter().filter(|span| span.step_s >= finest) {
        let points = reader.points(span, service, (from_s, until_s))?;
        if !points.is_empty() {
            return Ok(Some(Past {
                service: service.to_owned(),
                step_s: span.step_s,
                points,
            }));
        }
    }
    Ok(None)
}

/// How many publications are looked through for one that moved slots.
const LOOKED_THROUGH: u32 = 200;

/// The last publication of a time that moved slots, with what somebody did that it came of; and the last
/// audit before it. What only ends a transition is what an earlier one began.
fn last(journal: &Reader, since_ms: u64, until_ms: u64) -> Result<Last, Error> {
    let publications = of_kind(Kind::Publication, since_ms, until_ms);
    let mut publications = journal.last(&publications, LOOKED_THROUGH)?;
    let moved = publications.iter().rposition(|row| {
        let settles = |why: &Value| [NO_FLOWS_LEFT, WINDOW_OVER].iter().any(|of| why == of);
        let of = |key: &str| row.detail[key].as_array().map_or(&[][..], Vec::as_slice);
        !of("slots").is_empty() && !of("why").iter().all(settles)
    });
    let place = moved.or(publications.len().checked_sub(1));
    let Some(publication) = place.map(|place| publications.swap_remove(place)) else {
        return Ok(Last::default());
    };
    // It is told right behind the publication that it came of.
    let behind = journal.after(&Filter::default(), publication.id, 20)?;
    let wish = behind.into_iter().find(|row| {
        matches!(row.kind.as_str(), "override" | "change")
            && row.generation == publication.generation
    });
    let audits = of_kind(Kind::Audit, 0, publication.at_ms + 1);
    Ok(Last {
        audit: journal.last(&audits, 1)?.pop(),
        wish: wish.filter(|row| row.at_ms <= publication.at_ms + 5_000),
        publication: Some(publication),
    })
}

/// Looks a reference up; answers why it leads nowhere.
///
/// # Errors
/// Where the journal or history cannot be read.
pub fn unresolved(
    noted: &Noted,
    journal: &Reader,
    history: Option<&history::Reader>,
) -> Result<Option<String>, Error> {
    match &noted.source {
        Source::Journal { row, at_ms, kind } => {
            let found = journal.after(&Filter::default(), row - 1, 1)?;
            let same = |of: &Record| (of.id, of.at_ms, &of.kind) == (*row, *at_ms, kind);
            Ok((!found.first().is_some_and(same)).then(|| format!("there is no row {row}")))
        }
        Source::History {
            service,
            backend,
            from_ms,
            until_ms,
            step_s,
            ..
        } => {
            let (Some(reader), Some(span)) = (
                history,
                SPANS.into_iter().find(|span| span.step_s == *step_s),
            ) else {
                return Ok(Some(format!("there is no history of {step_s} s")));
            };
            let range = (from_ms / 1000, until_ms.div_ceil(1000));
            let points = reader.points(span, service, range)?;
            let of = |sample: &Sample| match backend {
                Some(name) => sample.backends.contains_key(name),
                None => true,
            };
            let found = points.iter().any(|(_, sample)| of(sample));
            Ok((!found).then(|| format!("nothing is known of {service} in {range:?}")))
        }
    }
}
