//! What the rules' tests share.

use serde_json::{Value, json};

use crate::admin::proto::Status;

/// A status as the controller of a service of three backends would give it, with a part of it changed.
pub(crate) fn status(change: impl FnOnce(&mut Value)) -> Status {
    let backend = |n: u8, slots: u32| {
        json!({
            "name": format!("10.0.0.{n}"), "address": format!("10.0.0.{n}"), "weight": 1,
            "capacity": null, "health": "up", "health_since_ms": 0, "last_probe": null,
            "out_of_ring": null, "next_hop": null, "slots": slots, "intended_share": 0.33,
            "observed_share": null, "observed_over_s": 0.0, "packets": 0, "bytes": 0,
            "new_flows": 0, "packet_rate": 0.0, "byte_rate": 0.0, "new_flow_rate": 0.0,
        })
    };
    let mut value = json!({
        "version": "0", "pid": 1, "started_at_ms": 0, "now_ms": 0, "config_file": "f",
        "config_sha256": "abc", "generation": 1, "published_at_ms": null, "interfaces": [],
        "tables": {
            "as_intended": true, "checked_at_ms": 0, "differing_slots": 0, "differences": [],
        },
        "exits": {},
        "services": [{
            "name": "web", "key": "tcp 198.51.100.10:80", "vip": "198.51.100.10", "port": 80,
            "protocol": "tcp", "mode": "dsr", "ring_slots": 256, "on_empty": "drop",
            "serving": 3, "exits": {}, "remembered": {
                "flows": 0, "slots_in_transition": 0, "slots_pinned": 0, "changed_at_ms": null,
            },
            "evenness": {
                "verdict": "even", "message": "", "detectable_skew": null,
                "detectable_within_s": null, "findings": [],
            },
            "backends": [backend(11, 85), backend(12, 86), backend(13, 85)],
        }],
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}
