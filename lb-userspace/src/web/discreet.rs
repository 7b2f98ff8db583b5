//! What is shown without the addresses of clients: who may look at the page need not be who may ask
//! the admin API.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    addresses,
    admin::proto::{Cause, Finding, Service, Status},
};

/// Knows which addresses are the configuration's own.
pub(super) struct Discreet {
    known: BTreeSet<IpAddr>,
}

impl Discreet {
    pub(super) fn of(status: &Status) -> Self {
        Self {
            known: configured(status),
        }
    }

    /// A text in which every address that nobody configured is a client's.
    pub(super) fn text(&self, text: &str) -> String {
        let client = |address| (!self.known.contains(&address)).then(|| "(a client)".to_owned());
        addresses::replaced(text, client)
    }

    /// A service without its clients.
    pub(super) fn service(&self, service: &Service) -> Service {
        let mut shown = service.clone();
        let evenness = &mut shown.evenness;
        evenness.message = self.text(&evenness.message);
        for finding in &mut evenness.findings {
            let Finding { message, .. } = finding;
            *message = self.text(message);
        }
        if let Some(Cause {
            message, ruled_out, ..
        }) = &mut evenness.cause
        {
            *message = self.text(message);
            for why in ruled_out {
                *why = self.text(why);
            }
        }
        if let Some(clients) = &mut evenness.clients {
            clients.heaviest.clear();
        }
        shown
    }
}

/// The addresses that the configuration names.
fn configured(status: &Status) -> BTreeSet<IpAddr> {
    let services = status.services.iter();
    let of = |service: &Service| {
        let backends = service.backends.iter().map(|backend| backend.address);
        backends.chain([service.vip]).collect::<Vec<_>>()
    };
    services.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::status;

    #[test]
    fn clients_are_nobody_and_what_is_configured_keeps_its_address() {
        let status = status(|status| {
            status["services"][0]["backends"][0]["address"] = "fd00::11".into();
            let evenness = &mut status["services"][0]["evenness"];
            evenness["cause"] = serde_json::json!({
                "kind": "heavy-clients", "backend": null,
                "message": "the heaviest clients make it (203.0.113.7 with 40.0 % of new flows)",
                "ruled_out": ["few clients: 2001:db8:1:: has 3.0 %"],
            });
            evenness["clients"] = serde_json::json!({
                "samples": 9, "effective": 2.0,
                "heaviest": [{ "client": "203.0.113.7", "share": 0.4 }],
            });
        });
        let discreet = Discreet::of(&status);
        for (text, expected) in [
            (
                "fd00::11 and 10.0.0.12: fine.",
                "fd00::11 and 10.0.0.12: fine.",
            ),
            ("203.0.113.7: 40 %", "(a client): 40 %"),
            ("by 203.0.113.7.", "by (a client)."),
            (
                "from 2001:db8::/64, 1.5x at 12:30",
                "from (a client)/64, 1.5x at 12:30",
            ),
            ("to 198.51.100.10 Ünïcödé", "to 198.51.100.10 Ünïcödé"),
            ("", ""),
        ] {
            assert_eq!(discreet.text(text), expected);
        }
        let shown = discreet.service(&status.services[0]);
        let json = serde_json::to_string(&shown).unwrap();
        for client in ["203.0.113.7", "2001:db8:1"] {
            assert!(!json.contains(client), "{json}");
        }
        assert!(json.contains("fd00::11"));
    }
}
