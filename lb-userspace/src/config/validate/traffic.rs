//! What a service's owner says of its traffic, for the audit.

use std::{num::NonZeroU32, time::Duration};

use super::field::{Fields, place};
use crate::{
    config::raw::{self, Held},
    model::Traffic,
};

/// Longer than any connection is left silent.
const LONGEST_SILENCE: Duration = Duration::from_hours(24);

/// Checks what is said of the traffic.
pub(super) fn check(raw: &raw::Service, fields: &mut Fields<'_, '_>) -> Option<Traffic> {
    let remedy = "give a whole number from 1, in the unit of the backends' capacity";
    let peak_load = fields.optional("peak_load", &raw.peak_load, remedy, |&number| {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| format!("is {number}"))
    });
    let undeclared = || {
        let mut backends = raw.backends.good()?.iter().filter_map(|b| b.good());
        Some(backends.all(|backend| matches!(backend.0.capacity.held(), Held::Missing)))
    };
    if let (Some(at), Some(true)) = (place(&raw.peak_load), undeclared()) {
        fields.report(
            at,
            "peak_load",
            "no backend says what it can take",
            "declare the capacity of each backend in the same unit, or remove it",
        );
    }
    let bounds = Duration::from_secs(1)..=LONGEST_SILENCE;
    let leaf = &raw.keepalive;
    let keepalive = fields.duration("keepalive", leaf, Duration::from_secs(75), bounds);
    Some(Traffic {
        peak_load: peak_load?,
        keepalive: keepalive.map(|length| place(leaf).is_some().then_some(length))?,
    })
}
