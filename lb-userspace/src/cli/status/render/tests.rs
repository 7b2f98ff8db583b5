use super::*;
use crate::admin::proto::{HeavyClient, Performance};

/// The status whose pictures are `80.txt` and `140.txt`.
fn fixture() -> Status {
    serde_json::from_str(include_str!("fixture.json")).unwrap()
}

const PLAIN: View = View {
    width: None,
    colour: false,
};

fn at(width: usize) -> View {
    View {
        width: Some(width),
        ..PLAIN
    }
}

#[track_caller]
fn assert_text(found: &str, expected: &str) {
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

/// What a terminal shows of text with colours.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = escape.split_once('m').unwrap().1;
    }
    out + rest
}

#[test]
fn eighty_columns_keep_what_matters_most() {
    assert_text(&render(&fixture(), at(80)), include_str!("80.txt"));
}

#[test]
fn wide_terminals_show_more() {
    assert_text(&render(&fixture(), at(140)), include_str!("140.txt"));
}

#[test]
fn pipes_get_everything() {
    let text = render(&fixture(), PLAIN);
    assert!(
        text.contains("02:00:00:00:01:01 via fe80::1, eth1"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn colours_change_no_letter() {
    let colourful = render(
        &fixture(),
        View {
            colour: true,
            ..at(80)
        },
    );
    assert!(colourful.contains("\x1b[31m"), "{colourful}");
    let bare: Vec<String> = without_colours(&colourful)
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    assert_text(&(bare.join("\n") + "\n"), include_str!("80.txt"));
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let mut status = fixture();
    let backend = &mut status.services[0].backends[0];
    backend.name = "a-backend-whose-name-was-made-by-a-machine-4b1f0c".repeat(3);
    backend.address = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
    for width in [60, 80, 100, 140, 200] {
        for line in render(&status, at(width)).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn odd_names_steer_no_terminal() {
    let mut status = fixture();
    let service = &mut status.services[0];
    service.name = "web\x1b[2J".to_owned();
    service.backends[0].name = "b\n1\u{202e}".to_owned();
    service.backends[2].last_probe.as_mut().unwrap().detail = "\x07HTTP 200\r\n".to_owned();
    let text = render(&status, PLAIN);
    assert!(text.contains(r"web\u{1b}[2J  tcp"), "{text}");
    assert!(text.contains(r"  b\n1\u{202e}  10.0.0.1"), "{text}");
    assert!(text.contains(r"\u{7}HTTP 200\r\n in 0.2 ms"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
}

#[test]
fn huge_and_senseless_numbers_are_shown() {
    let mut status = fixture();
    let backend = &mut status.services[0].backends[0];
    backend.packet_rate = f64::NAN;
    backend.byte_rate = f64::MAX;
    backend.new_flow_rate = u64::MAX as f64;
    backend.observed_share = Some(f64::NAN);
    backend.health_since_ms = u64::MAX;
    status.generation = u64::MAX;
    status.published_at_ms = Some(0);
    let text = render(&status, at(80));
    assert!(
        text.starts_with("generation 18446744073709551615, published 57years 14days ago"),
        "{text}"
    );
    assert!(text.contains("18447P"), "{text}");
}

#[test]
fn tables_that_differ_are_the_first_thing_said() {
    let mut status = fixture();
    status.published_at_ms = None;
    status.interfaces.clear();
    status.tables.as_intended = false;
    status.tables.differing_slots = 3;
    status.tables.differences = vec!["web: 3 slots of b1 belong to b2".to_owned()];
    let text = render(&status, PLAIN);
    let head: Vec<&str> = text.lines().take(4).collect();
    assert_eq!(
        head,
        [
            "generation 42, published before this controller started; attached to no interface; \
             up 3h 12m",
            "tables NOT as intended: 3 slots differ, compared 4s ago",
            "  web: 3 slots of b1 belong to b2",
            "wrong: the kernel's tables are not the intended ones; web is skewed; dns has no usable \
             backend",
        ]
    );
}

#[test]
fn too_little_traffic_is_nothing_wrong() {
    let mut status = fixture();
    status.services[0].evenness.verdict = Verdict::CannotTell;
    status.services.truncate(1);
    assert_eq!(judgement::reasons(&status), Vec::<String>::new());
    assert!(!render(&status, PLAIN).contains("wrong:"));
}

#[test]
fn remembered_flows_and_floods_are_told() {
    let mut status = fixture();
    let now = status.now_ms;
    let service = &mut status.services[0];
    service.remembered = Remembered {
        flows: 1_234,
        slots_in_transition: 655,
        slots_pinned: 0,
        changed_at_ms: Some(now - 61_000),
    };
    service.syn_flood = Some(crate::admin::proto::SynFlood {
        since_ms: now - 5_000,
        syn_rate: 12_000.0,
        syn_share: 0.97,
    });
    let text = render(&status, PLAIN);
    assert!(
        text.contains("  remembers 1234 flows, 655 slots in transition for 1m 1s\n"),
        "{text}"
    );
    assert!(
        text.contains("  SYN flood for 5s: 12.0k SYNs/s, 97.0 % of its packets\n"),
        "{text}"
    );
    assert!(text.contains("is under a SYN flood"), "{text}");
}

#[test]
fn a_demoted_backend_is_shown_with_its_reason_and_what_comes_next() {
    let mut status = fixture();
    let service = &mut status.services[0];
    service.panic = Some("1 of 3 backends are up".to_owned());
    service.fleet_degraded = Some("2 of 3 backends are slow or fail".to_owned());
    service.demotions_frozen_s = Some(299.7);
    let backend = &mut service.backends[1];
    (backend.weight, backend.weight_in_force) = (4, Some(1.0));
    backend.full_in_s = Some(12.0);
    backend.performance = Some(Performance {
        state: "demoted".to_owned(),
        part: 0.25,
        cause: None,
        by: None,
        reason: Some("slow: 31 ms where its peers take 10 ms, 3.1x over 24 s".to_owned()),
        spared: None,
        latency_ms: Some(31.04),
        peers_ms: Some(10.0),
        ratio: Some(3.1),
        traffic: None,
        evidence: 1.0,
        next_rise_s: Some(60.0),
    });
    let text = render(&status, PLAIN);
    for words in [
        "PANIC: 1 of 3 backends are up; all that are not drained are used",
        "fleet degraded: 2 of 3 backends are slow or fail; nobody is demoted",
        "none follows for 300 s",
        "b2 is demoted, with 25.0 % of its weight: slow: 31 ms where its peers take 10 ms, 3.1x \
         over 24 s; more in 60 s if it is well",
        "b2 starts slowly: whole in 12 s",
        "ms/peers",
        "31.0/10.0",
        "1.0 of 4",
        "wrong: web is skewed; web is in panic; the fleet of web is degraded",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
}

#[test]
fn what_was_repaired_is_told_beside_tables_that_are_as_intended() {
    let mut status = fixture();
    let repairs = &mut status.tables.repairs;
    repairs.count = 2;
    repairs.last_at_ms = Some(status.now_ms - 120_000);
    repairs.last = vec!["web: 3 slots differ".to_owned()];
    let text = render(&status, PLAIN);
    assert!(
        text.contains(
            "\n  repaired 2 times since the start, the last time 2m ago: web: 3 slots differ\n"
        ),
        "{text}"
    );
    status.tables.as_intended = false;
    status.tables.repairs.given_up = true;
    let text = render(&status, PLAIN);
    assert!(text.contains("not repaired any more"), "{text}");
}

#[test]
fn a_cause_is_told_once_with_what_it_is_not() {
    let mut status = fixture();
    let evenness = &mut status.services[0].evenness;
    let message = evenness.findings[0].message.clone();
    let ruled_out = vec!["table: each backend has the slots that its weight asks for".to_owned()];
    evenness.cause = Some(Cause {
        kind: "heavy-clients".to_owned(),
        backend: None,
        message: message.clone(),
        ruled_out,
    });
    evenness.clients = Some(Clients {
        samples: 900,
        effective: Some(2.04),
        heaviest: vec![HeavyClient {
            client: "192.0.2.7".parse().unwrap(),
            share: 0.7,
        }],
    });
    let text = render(&status, PLAIN);
    let counted = render(&fixture(), PLAIN).matches(&message).count();
    assert_eq!(text.matches(&message).count(), counted, "{text}");
    assert!(
        text.contains("    not table: each backend has the slots that its weight asks for\n"),
        "{text}"
    );
    assert!(
        text.contains("  clients: as 2 that are alike; heaviest 192.0.2.7 70.0 %\n"),
        "{text}"
    );
    // What no finding says is said by the cause itself.
    status.services[0].evenness.cause.as_mut().unwrap().message = "b5 is slow".to_owned();
    assert!(render(&status, PLAIN).contains("  b5 is slow\n"));
}
