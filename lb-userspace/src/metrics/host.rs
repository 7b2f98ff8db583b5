//! What is one for the whole controller.

use std::{collections::BTreeMap, fmt};

use lb_common::verdict::Reason;
use prometheus_client::registry::Unit;

use super::{
    page::{ALONE, Page, of, plain, truth},
    seconds,
};
use crate::{
    admin::proto::{Notify, Receiver, Status},
    model::AlertName,
};

pub(super) fn write(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    itself(status, page)?;
    publications(status, page)?;
    tables(status, page)?;
    tracking(status, page)?;
    alerts(status, page)?;
    notify(&status.notify, page)?;
    audit(status, page)
}

fn itself(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let build = plain("build", "The controller's version with its git revision.");
    page.info(&build, [[("version", &*status.version)]])?;
    let help = "When the controller started.";
    let started = of(Unit::Seconds, "start_timestamp", help);
    page.gauge(&started, [(ALONE, seconds(status.started_at_ms))])?;
    let help = "When what these metrics say was true. It stands still where the controller hangs.";
    let made = of(Unit::Seconds, "status_timestamp", help);
    page.gauge(&made, [(ALONE, seconds(status.now_ms))])?;
    let help = "Interfaces that the program is attached to.";
    let attached = plain("interface_attached", help);
    let one = |interface: &crate::admin::proto::Interface| {
        let (name, mode) = (interface.name.clone(), interface.xdp_mode.clone());
        ([("interface", name), ("xdp_mode", mode)], 1.0)
    };
    page.gauge(&attached, status.interfaces.iter().map(one))?;
    let help = "Packets that belong to no service and reached no backend, by reason.";
    let exits = plain("not_forwarded_packets", help);
    let counted = status.exits.iter();
    page.counter(&exits, counted.map(|(why, n)| ([("reason", why)], *n)))?;
    let help = "Whether events wait in memory because the disk takes none.";
    let failing = plain("journal_failing", help);
    page.gauge(&failing, [(ALONE, truth(status.journal.failure.is_some()))])?;
    let help = "Whether history is not written because the disk does not take it.";
    let failing = plain("history_failing", help);
    page.gauge(&failing, [(ALONE, truth(status.history.failure.is_some()))])?;
    let lost = plain("journal_lost_events", "Events that there was no room for.");
    page.counter(&lost, [(ALONE, status.journal.lost)])
}

fn publications(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let help = "The publication that packets follow.";
    let generation = plain("generation", help);
    page.gauge(&generation, [(ALONE, status.generation as f64)])?;
    let help = "Publications of tables since the controller started, by what the kernel did.";
    let made = plain("publications", help);
    let of_all = &status.publications;
    let rows = [("taken", of_all.count), ("refused", of_all.refused)];
    page.counter(&made, rows.map(|(word, n)| ([("outcome", word)], n)))?;
    let help = "From what made a publication necessary to the moment that packets followed it.";
    let took = of(Unit::Seconds, "publication_duration", help);
    page.durations(&took, [(ALONE, of_all.took)])?;
    let help = "When tables were last published by this controller.";
    let last = of(Unit::Seconds, "publication_timestamp", help);
    let at = status.published_at_ms.map(|at| (ALONE, seconds(at)));
    page.gauge(&last, at)?;
    let help = "Whether the kernel refuses the tables that follow from the present state.";
    let refused = plain("publication_refused", help);
    page.gauge(&refused, [(ALONE, truth(status.refused.is_some()))])
}

fn tables(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let tables = &status.tables;
    let help = "Whether the kernel's tables are the intended ones, byte by byte.";
    let intended = plain("tables_as_intended", help);
    page.gauge(&intended, [(ALONE, truth(tables.as_intended))])?;
    let help = "Slots whose owner in the kernel is not the intended one.";
    let differing = plain("tables_differing_slots", help);
    page.gauge(&differing, [(ALONE, tables.differing_slots as f64)])?;
    let help = "When the kernel's tables were last compared with the intended ones.";
    let checked = of(Unit::Seconds, "tables_checked_timestamp", help);
    page.gauge(&checked, [(ALONE, seconds(tables.checked_at_ms))])?;
    let help = "Repairs of tables that somebody else had changed.";
    let repairs = plain("tables_repairs", help);
    page.counter(&repairs, [(ALONE, tables.repairs.count)])?;
    let help = "Whether nothing is repaired any more, because it did not last.";
    let given_up = plain("tables_repairs_given_up", help);
    page.gauge(&given_up, [(ALONE, truth(tables.repairs.given_up))])
}

fn tracking(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let tracking = &status.tracking;
    let flows = plain("tracked_flows", "Flows that are remembered.");
    page.gauge(&flows, [(ALONE, tracking.flows as f64)])?;
    let help = "Entries of flows that there is room for: of first packets (fresh), of all others.";
    let room = plain("tracking_room_entries", help);
    let rows = [
        ("fresh", tracking.fresh_room),
        ("established", tracking.established_room),
    ];
    page.gauge(&room, rows.map(|(table, n)| ([("table", table)], n as f64)))?;
    let help = "Entries of flows that were made, since the maps were.";
    let made = plain("tracking_entries", help);
    let rows = [
        ("fresh", tracking.fresh),
        ("established", tracking.established),
    ];
    page.counter(&made, rows.map(|(table, n)| ([("table", table)], n)))?;
    let help = "Entries of flows for which there was no room.";
    let refused = plain("tracking_refused_entries", help);
    page.counter(&refused, [(ALONE, tracking.refused)])?;
    let help = "Ports that were taken when mode snat tried them.";
    let collisions = plain("snat_port_collisions", help);
    page.counter(&collisions, [(ALONE, tracking.collisions)])
}

fn alerts(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let help = "Alerts that are on, by name and severity. Those that another one explains, or that \
                are on for too short a time to tell, are left out.";
    let mut on: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for alert in status.alerts.iter().filter(|alert| alert.state == "firing") {
        *on.entry((&alert.name, &alert.severity)).or_default() += 1;
    }
    // Of each there is a series at any time: one that appears with its first alert has no beginning.
    for name in AlertName::ALL {
        on.entry((name.word(), name.severity().word())).or_default();
    }
    let rows = on.into_iter().map(|((name, severity), count)| {
        let labels = [("alert", name), ("severity", severity)];
        (labels, f64::from(count))
    });
    page.gauge(&plain("alerts_firing", help), rows)
}

fn notify(notify: &Notify, page: &mut Page<'_>) -> fmt::Result {
    type Count = fn(&Receiver) -> u64;
    let help = "Notifications by receiver: taken (sent), tries that failed (failed), given up \
                (dropped), made later because too many wait (held-back).";
    let outcomes: [(&str, Count); 4] = [
        ("sent", |r| r.sent),
        ("failed", |r| r.failed),
        ("dropped", |r| r.dropped),
        ("held-back", |r| r.held_back),
    ];
    let rows = notify.receivers.iter().flat_map(|receiver| {
        let name = &*receiver.name;
        outcomes.map(|(word, count)| ([("receiver", name), ("outcome", word)], count(receiver)))
    });
    page.counter(&plain("notifications", help), rows)?;
    let help = "Notifications that wait to be taken.";
    let waiting = |receiver: &'_ Receiver| receiver.waiting as f64;
    let rows = notify
        .receivers
        .iter()
        .map(|r| ([("receiver", &*r.name)], waiting(r)));
    page.gauge(&plain("notifications_waiting", help), rows)?;
    let help = "Since when every try to tell a receiver has failed.";
    let since = of(Unit::Seconds, "notifications_failing_since_timestamp", help);
    let failing = notify.receivers.iter().filter_map(|receiver| {
        let since = receiver.failing_since_ms?;
        Some(([("receiver", &*receiver.name)], seconds(since)))
    });
    page.gauge(&since, failing)
}

fn audit(status: &Status, page: &mut Page<'_>) -> fmt::Result {
    let audit = &status.audit;
    let help = "What the last audit found, by level.";
    let rows = audit.findings.iter();
    let rows = rows.map(|(level, count)| ([("level", level)], *count as f64));
    page.gauge(&plain("audit_findings", help), rows)?;
    let help = "When the controller last audited what it runs by.";
    let at = of(Unit::Seconds, "audit_timestamp", help);
    page.gauge(&at, audit.at_ms.map(|ms| (ALONE, seconds(ms))))?;
    let help = "Whether the configuration on disk is not valid, so that the next start would fail.";
    let rejected = plain("configuration_rejected", help);
    page.gauge(&rejected, [(ALONE, truth(audit.rejected.is_some()))])?;
    let help = "The configuration that is in force.";
    let (number, sha256) = (&status.configuration.number, &status.config_sha256);
    let labels = [("number", number.to_string()), ("sha256", sha256.clone())];
    page.info(&plain("configuration", help), [labels])
}

/// The reasons that every service has a series of, also where none occurred: rules ask for them.
pub(super) const ASKED_FOR: [Reason; 3] = [
    Reason::NoBackendDropped,
    Reason::NoBackendPassed,
    Reason::Unresolved,
];
