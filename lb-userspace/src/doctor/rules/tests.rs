use std::collections::BTreeMap;

use super::*;
use crate::{
    doctor::facts::{
        Hook, Host, Label, Master, Needs, Owner, Peer, PinsPlace, Plan, Program, QueueKind, Route,
        Tunnel, Way,
    },
    model::XdpMode,
};

/// Takes a program, its verdicts, redirection, packets in several buffers.
const FEATURES: u64 = 0b10_0011;

/// A host that has nothing to complain of.
fn fit() -> Facts {
    let interface = Interface {
        up: true,
        carrier: true,
        ethernet: true,
        kind: None,
        driver: Some("ice".to_owned()),
        parent: None,
        master: None,
        vlans: Vec::new(),
        mtu: 1500,
        queues: 8,
        max_queues: Some(16),
        queue_kind: QueueKind::Combined,
        offloads: Some(["rx-gro".to_owned()].into()),
        xdp_features: Some(FEATURES),
        program: None,
        peer: None,
        forwarding_v4: Some(true),
        forwarding_v6: Some(true),
        rp_filter: Some(0),
    };
    let backend = "10.0.0.11".parse().unwrap();
    Facts {
        plan: Plan {
            mode: XdpMode::Native,
            pins: "/sys/fs/bpf/evenkeel".into(),
            interfaces: vec!["eth0".to_owned()],
            ways: vec![Way {
                service: "web".into(),
                vip: "198.51.100.10".parse().unwrap(),
                backend,
                needs: Needs::default(),
            }],
        },
        host: Host {
            release: "6.12.9-amd64".to_owned(),
            jit: Some(1),
            cpus: 8,
            pins: PinsPlace::Bpffs,
            privileged: true,
            frags: false,
            rp_filter: Some(0),
        },
        interfaces: BTreeMap::from([("eth0".to_owned(), Some(interface))]),
        routes: BTreeMap::from([(
            backend,
            Route {
                interface: "eth0".to_owned(),
                mtu: 1500,
            },
        )]),
    }
}

type Change = fn(&mut Facts);

fn eth0(facts: &mut Facts) -> &mut Interface {
    facts.interfaces.get_mut("eth0").unwrap().as_mut().unwrap()
}

fn attach(facts: &mut Facts, hook: Hook, owner: Owner) {
    let label = Some(Label {
        name: "dispatcher".to_owned(),
        tag: 0xab,
    });
    eth0(facts).program = Some(Program {
        id: 12,
        hook,
        label,
        owner,
    });
}

fn foreign() -> Owner {
    Owner::Foreign {
        holders: vec!["xdpd (42)".to_owned()],
        link: Some(7),
    }
}

fn veth(facts: &mut Facts) {
    let interface = eth0(facts);
    interface.driver = None;
    interface.kind = Some("veth".to_owned());
    interface.peer = Some(Peer {
        mtu: 1500,
        queues: 8,
        program: true,
    });
}

fn offload(facts: &mut Facts, name: &str) {
    eth0(facts)
        .offloads
        .get_or_insert_default()
        .insert(name.to_owned());
}

fn tunnel(facts: &mut Facts, tunnel: Tunnel, backend: &str, mtu: u32) {
    let way = &mut facts.plan.ways[0];
    way.needs.tunnel = Some(tunnel);
    way.backend = backend.parse().unwrap();
    let route = Route {
        interface: "eth0".to_owned(),
        mtu,
    };
    facts.routes = BTreeMap::from([(facts.plan.ways[0].backend, route)]);
}

/// What a rule says after a change of a host that is fit; `None` where it is silent.
fn said(rule: &str, change: Change) -> Option<Finding> {
    let mut facts = fit();
    change(&mut facts);
    let mut of_rule = judge(&facts).into_iter().filter(|f| f.rule == rule);
    let finding = of_rule.next();
    assert_eq!(of_rule.next(), None, "{rule} speaks twice");
    finding
}

#[test]
fn a_fit_host_is_told_to_be_fit() {
    let findings = judge(&fit());
    assert!(
        findings.iter().all(|f| f.level == Level::Ok),
        "{findings:#?}"
    );
    let rules: Vec<_> = findings.iter().map(|f| f.rule).collect();
    assert_eq!(
        rules,
        [
            "kernel",
            "jit",
            "bpffs",
            "up",
            "xdp-slot",
            "native",
            "mtu",
            "lro",
            "gro-hw",
            "vlan-offload",
            "queues",
            "way-out"
        ]
    );
}

/// Each change with the rule that it is about, and the level that the rule then gives.
const CASES: &[(&str, Option<Level>, Change)] = &[
    ("privilege", Some(Level::Warning), |f| {
        f.host.privileged = false;
    }),
    ("privilege", None, |_| {}),
    ("kernel", Some(Level::Error), |f| {
        f.host.release = "5.10.0-30-amd64".to_owned();
    }),
    ("kernel", Some(Level::Ok), |f| {
        f.host.release = "6.1.0".to_owned();
    }),
    ("kernel", None, |f| f.host.release = "unknown".to_owned()),
    ("jit", Some(Level::Warning), |f| f.host.jit = Some(0)),
    ("jit", Some(Level::Ok), |f| f.host.jit = Some(2)),
    ("jit", None, |f| f.host.jit = None),
    ("bpffs", Some(Level::Error), |f| {
        f.host.pins = PinsPlace::Elsewhere;
    }),
    ("bpffs", Some(Level::Info), |f| {
        f.host.pins = PinsPlace::Mountable;
    }),
    ("exists", Some(Level::Error), |f| {
        f.interfaces.insert("eth0".to_owned(), None);
    }),
    ("exists", None, |_| {}),
    ("ethernet", Some(Level::Error), |f| {
        eth0(f).ethernet = false;
    }),
    ("ethernet", None, |_| {}),
    ("up", Some(Level::Warning), |f| eth0(f).up = false),
    ("up", Some(Level::Warning), |f| eth0(f).carrier = false),
    ("port", Some(Level::Warning), |f| {
        eth0(f).master = Some(Master {
            name: "bond0".to_owned(),
            kind: "bond".to_owned(),
        });
    }),
    ("port", None, |f| {
        eth0(f).master = Some(Master {
            name: "red".to_owned(),
            kind: "vrf".to_owned(),
        });
    }),
    ("xdp-slot", Some(Level::Error), |f| {
        attach(f, Hook::Native, foreign());
    }),
    ("xdp-slot", Some(Level::Ok), |f| {
        attach(f, Hook::Native, Owner::Ours);
    }),
    ("xdp-slot", Some(Level::Warning), |f| {
        attach(f, Hook::Generic, Owner::Ours);
    }),
    ("xdp-slot", Some(Level::Ok), |f| {
        f.plan.mode = XdpMode::Generic;
        attach(f, Hook::Generic, Owner::Ours);
    }),
    ("xdp-slot", Some(Level::Info), |f| {
        attach(f, Hook::Native, Owner::Unknown);
    }),
    ("native", Some(Level::Error), |f| {
        eth0(f).xdp_features = Some(0);
    }),
    ("native", Some(Level::Info), |f| {
        eth0(f).xdp_features = None;
    }),
    ("native", None, |f| {
        f.plan.mode = XdpMode::Generic;
        eth0(f).xdp_features = Some(0);
    }),
    // It runs: whatever the driver says of itself.
    ("native", Some(Level::Ok), |f| {
        eth0(f).xdp_features = Some(0);
        attach(f, Hook::Native, Owner::Ours);
    }),
    ("mtu", Some(Level::Ok), |f| eth0(f).mtu = 3506),
    ("mtu", Some(Level::Warning), |f| eth0(f).mtu = 3507),
    ("mtu", Some(Level::Ok), |f| {
        eth0(f).mtu = 9000;
        f.host.frags = true;
    }),
    ("mtu", Some(Level::Warning), |f| {
        eth0(f).mtu = 9000;
        eth0(f).xdp_features = Some(1);
        f.host.frags = true;
    }),
    ("mtu", None, |f| {
        eth0(f).mtu = 9000;
        f.plan.mode = XdpMode::Generic;
    }),
    ("mtu", None, |f| {
        eth0(f).mtu = 9000;
        attach(f, Hook::Native, Owner::Ours);
    }),
    ("mtu", Some(Level::Error), |f| {
        veth(f);
        eth0(f).peer.as_mut().unwrap().mtu = 3507;
    }),
    ("mtu", Some(Level::Ok), |f| {
        veth(f);
        eth0(f).mtu = 9000;
    }),
    ("lro", Some(Level::Warning), |f| offload(f, "rx-lro")),
    ("lro", None, |f| {
        f.plan.mode = XdpMode::Generic;
        offload(f, "rx-lro");
    }),
    ("lro", None, |f| eth0(f).offloads = None),
    ("gro-hw", Some(Level::Warning), |f| offload(f, "rx-gro-hw")),
    ("gro-hw", Some(Level::Ok), |f| offload(f, "rx-lro")),
    ("vlan-offload", Some(Level::Info), |f| {
        offload(f, "rx-vlan-hw-parse");
    }),
    ("vlan-offload", Some(Level::Warning), |f| {
        offload(f, "rx-vlan-hw-parse");
        eth0(f).vlans = vec!["eth0.10".to_owned()];
    }),
    ("vlan-offload", None, |f| {
        f.plan.mode = XdpMode::Generic;
        offload(f, "rx-vlan-hw-parse");
    }),
    ("queues", Some(Level::Ok), |f| eth0(f).queues = 16),
    ("queues", Some(Level::Info), |f| eth0(f).queues = 4),
    ("queues", Some(Level::Warning), |f| eth0(f).queues = 1),
    ("queues", Some(Level::Info), |f| {
        eth0(f).queues = 1;
        eth0(f).max_queues = Some(1);
    }),
    ("send-queues", Some(Level::Info), |f| {
        eth0(f).driver = Some("virtio_net".to_owned());
        eth0(f).max_queues = Some(15);
    }),
    ("send-queues", Some(Level::Ok), |f| {
        eth0(f).driver = Some("virtio_net".to_owned());
        eth0(f).max_queues = Some(16);
    }),
    ("veth-peer", Some(Level::Ok), veth),
    ("veth-peer", Some(Level::Warning), |f| {
        veth(f);
        eth0(f).peer.as_mut().unwrap().program = false;
    }),
    ("veth-peer", Some(Level::Info), |f| {
        veth(f);
        eth0(f).peer = None;
    }),
    ("veth-peer", None, |f| {
        veth(f);
        f.plan.mode = XdpMode::Generic;
    }),
    ("forwarding", None, |f| {
        eth0(f).forwarding_v4 = Some(false);
    }),
    ("forwarding", Some(Level::Warning), |f| {
        eth0(f).forwarding_v4 = Some(false);
        f.plan.ways[0].needs.answers = true;
    }),
    ("forwarding", Some(Level::Ok), |f| {
        eth0(f).forwarding_v6 = Some(false);
        f.plan.ways[0].needs.answers = true;
    }),
    ("forwarding", Some(Level::Warning), |f| {
        eth0(f).forwarding_v6 = Some(false);
        f.plan.ways[0].needs.answers = true;
        f.plan.ways[0].vip = "2001:db8::10".parse().unwrap();
    }),
    ("rp-filter", None, |f| f.host.rp_filter = Some(1)),
    ("rp-filter", Some(Level::Info), |f| {
        f.host.rp_filter = Some(1);
        f.plan.interfaces.push("eth1".to_owned());
    }),
    // The larger of the two is in force, and the larger is the looser.
    ("rp-filter", Some(Level::Ok), |f| {
        f.host.rp_filter = Some(1);
        eth0(f).rp_filter = Some(2);
        f.plan.interfaces.push("eth1".to_owned());
    }),
    ("way-out", Some(Level::Warning), |f| {
        f.routes.values_mut().next().unwrap().interface = "eth1".to_owned();
    }),
    ("way-out", Some(Level::Ok), |f| {
        f.routes.values_mut().next().unwrap().interface = "eth1".to_owned();
        f.plan.interfaces.push("eth1".to_owned());
    }),
    ("way-out", Some(Level::Warning), |f| {
        f.plan.ways.push(Way {
            backend: "10.0.0.12".parse().unwrap(),
            ..f.plan.ways[0].clone()
        });
    }),
    ("way-out", None, |f| f.routes.clear()),
    ("mtu-headroom", None, |_| {}),
    ("mtu-headroom", Some(Level::Warning), |f| {
        tunnel(f, Tunnel::Ip, "10.0.0.11", 1519);
    }),
    ("mtu-headroom", Some(Level::Ok), |f| {
        tunnel(f, Tunnel::Ip, "10.0.0.11", 1520);
    }),
    ("mtu-headroom", Some(Level::Warning), |f| {
        tunnel(f, Tunnel::Ip, "fd00::11", 1539);
    }),
    ("mtu-headroom", Some(Level::Ok), |f| {
        tunnel(f, Tunnel::Ip, "fd00::11", 1540);
    }),
    ("mtu-headroom", Some(Level::Warning), |f| {
        tunnel(f, Tunnel::Udp, "10.0.0.11", 1527);
    }),
    ("mtu-headroom", Some(Level::Ok), |f| {
        tunnel(f, Tunnel::Udp, "10.0.0.11", 1528);
    }),
    ("mtu-headroom", Some(Level::Warning), |f| {
        tunnel(f, Tunnel::Udp, "fd00::11", 1547);
    }),
    ("mtu-headroom", Some(Level::Ok), |f| {
        tunnel(f, Tunnel::Udp, "fd00::11", 1548);
    }),
    // Clients' packets are no longer than what the interface takes, and than the internet's.
    ("mtu-headroom", Some(Level::Ok), |f| {
        eth0(f).mtu = 1400;
        tunnel(f, Tunnel::Ip, "10.0.0.11", 1420);
    }),
    ("mtu-headroom", Some(Level::Ok), |f| {
        eth0(f).mtu = 9000;
        tunnel(f, Tunnel::Ip, "10.0.0.11", 1520);
    }),
];

#[test]
fn every_rule_speaks_when_it_should_and_only_then() {
    for (number, (rule, level, change)) in CASES.iter().enumerate() {
        let finding = said(rule, *change);
        assert_eq!(
            finding.as_ref().map(|f| f.level),
            *level,
            "case {number}, {rule}: {finding:?}"
        );
        let Some(finding) = finding else { continue };
        // Whoever is warned is told what to do, and why.
        let acts = finding.level >= Level::Warning;
        assert!(!acts || !finding.remedy.is_empty(), "{finding:?}");
        let why = !finding.why.is_empty() || finding.rule == "exists";
        assert!(finding.level == Level::Ok || why, "{finding:?}");
    }
}

#[test]
fn every_rule_has_a_case_that_trips_it() {
    let mut seen: Vec<_> = CASES
        .iter()
        .filter(|(_, level, _)| level.is_some_and(|level| level > Level::Ok))
        .map(|(rule, ..)| *rule)
        .collect();
    seen.dedup();
    assert_eq!(seen.len(), HOST.len() + INTERFACE.len() + 3, "{seen:?}");
}

#[test]
fn who_is_attached_is_named_with_the_command_that_removes_it() {
    let finding = said("xdp-slot", |f| {
        attach(f, Hook::Native, foreign());
    })
    .unwrap();
    assert_eq!(
        finding.to_string(),
        "eth0: another XDP program is attached: dispatcher (number 12, tag 00000000000000ab, \
         native): an interface takes one program; held by xdpd (42); stop or unload the software \
         that it belongs to, or detach it: 'bpftool link detach id 7'"
    );
    for (hook, switch) in [
        (Hook::Native, "xdpdrv"),
        (Hook::Generic, "xdpgeneric"),
        (Hook::Other, "xdp"),
    ] {
        let mut facts = fit();
        let owner = Owner::Foreign {
            holders: Vec::new(),
            link: None,
        };
        attach(&mut facts, hook, owner);
        let finding = slot::xdp_slot(&facts, "eth0", eth0(&mut facts.clone())).unwrap();
        let expected = format!("ip link set dev eth0 {switch} off");
        assert_eq!(finding.command, Some(expected));
    }
}

#[test]
fn a_veth_pair_with_too_few_queues_is_told_how_many_it_takes() {
    let finding = said("native", |f| {
        veth(f);
        eth0(f).xdp_features = Some(0);
        eth0(f).queues = 1;
    });
    let command = finding.unwrap().command;
    assert_eq!(command.as_deref(), Some("ethtool -L eth0 rx 8"));
}

#[test]
fn more_queues_are_asked_for_by_the_drivers_word_for_them() {
    for (kind, command) in [
        (QueueKind::Combined, "ethtool -L eth0 combined 8"),
        (QueueKind::Rx, "ethtool -L eth0 rx 8"),
    ] {
        let mut facts = fit();
        eth0(&mut facts).queues = 1;
        eth0(&mut facts).queue_kind = kind;
        let finding = nic::queues(&facts, "eth0", eth0(&mut facts.clone())).unwrap();
        assert_eq!(finding.command.as_deref(), Some(command));
    }
}

#[test]
fn forwarding_is_switched_on_for_the_families_that_need_it() {
    let finding = said("forwarding", |f| {
        let mut interface = eth0(f).clone();
        interface.forwarding_v4 = Some(false);
        interface.forwarding_v6 = Some(false);
        f.interfaces = BTreeMap::from([("eth0.10".to_owned(), Some(interface))]);
        f.plan.ways[0].needs.answers = true;
    });
    assert_eq!(
        finding.unwrap().command.as_deref(),
        Some("sysctl -w 'net/ipv4/conf/eth0.10/forwarding=1'")
    );
}

#[test]
fn a_stacked_interface_is_pointed_at_what_carries_it() {
    let finding = said("native", |f| {
        eth0(f).xdp_features = Some(0);
        eth0(f).parent = Some("eno1".to_owned());
    });
    assert!(finding.unwrap().remedy.contains("eno1"));
}

#[test]
fn what_does_not_fit_is_told_in_bytes() {
    let finding = said("mtu-headroom", |f| {
        tunnel(f, Tunnel::Ip, "10.0.0.11", 1500);
    })
    .unwrap();
    assert!(finding.why.contains("longer than 1480"), "{finding:?}");
    assert!(finding.remedy.contains("advmss 1440"), "{finding:?}");
    assert_eq!(
        finding.command.as_deref(),
        Some("ip link set dev eth0 mtu 1520")
    );
}

#[test]
fn many_backends_astray_are_counted_and_some_are_named() {
    let finding = said("way-out", |f| {
        let way = f.plan.ways[0].clone();
        for last in 20..25 {
            f.plan.ways.push(Way {
                backend: [10, 0, 0, last].into(),
                ..way.clone()
            });
        }
    })
    .unwrap();
    assert_eq!(
        finding.what,
        "5 of 6 backends are not reached by an interface of data_plane.interfaces: 10.0.0.20 (no \
         route), 10.0.0.21 (no route), 10.0.0.22 (no route) and 2 more"
    );
}
