//! Modes and options of services, and the tables that they share.

use std::net::IpAddr;

use super::*;
use crate::model::{
    Config, Ejection, Evenness, Fate, Fragments, Mode, OnDown, Part, PortRange, Senses, Service,
    Slowness, Spread, Tracking, Tunnel, UdpFlows, Underperformers,
};

/// A file with these tables in front of a service with these lines and these backends.
fn file(tables: &str, service: &str, backends: &[&str]) -> String {
    let mut all = String::new();
    for lines in backends {
        all.extend(["[[services.backends]]\n", lines, "\n"]);
    }
    format!(
        "[data_plane]\ninterfaces = [\"eth0\"]\n{tables}\n{}{all}",
        lines(service)
    )
}

/// A service's lines; its name is drawn from them.
fn lines(service: &str) -> String {
    let digits = service.chars().filter(char::is_ascii_digit);
    let name: String = digits.take(30).collect();
    format!("[[services]]\nname = \"s{name}\"\n{service}\n")
}

fn config(text: &str) -> Config {
    parse("f.toml", text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn service(service: &str, backend: &str) -> Service {
    let tables = "[snat]\naddresses = [\"192.0.2.1\"]";
    config(&file(tables, service, &[backend]))
        .services
        .remove(0)
}

const TCP: &str = "vip = \"198.51.100.10\"\nport = 80\n";
const UDP: &str = "vip = \"198.51.100.10\"\nport = 53\nprotocol = \"udp\"\n";
const BACKEND: &str = "address = \"10.0.0.11\"\n";

#[test]
fn every_mode_has_its_word() {
    for (word, mode) in Mode::WORDS {
        let service = service(&format!("{TCP}mode = \"{word}\""), BACKEND);
        assert_eq!(
            (service.mode, service.mode.to_string()),
            (mode, word.to_owned())
        );
    }
}

#[test]
fn a_tunnel_joins_the_families() {
    for mode in ["ipip", "gue"] {
        let of = format!("{TCP}mode = \"{mode}\"");
        assert!(
            service(&of, "address = \"fd00::1\"").backends[0]
                .address
                .is_ipv6()
        );
    }
    for mode in ["dsr", "nat", "snat"] {
        let text = file(
            "[snat]\naddresses = [\"192.0.2.1\"]",
            &format!("{TCP}mode = \"{mode}\""),
            &["address = \"fd00::1\""],
        );
        assert_found(
            &text,
            "address = \"fd00",
            "services[0].backends[0].address",
            "fd00::1 is IPv6",
            "ipip",
        );
    }
}

#[test]
fn options_are_what_they_say() {
    let of = service(
        &format!(
            "{UDP}udp = \"sticky\"\nspread = \"source\"\nallow = [\"192.0.2.0/24\", \"192.0.2.7\"]\n\
             deny = [\"192.0.2.128/25\"]\nfragments = \"follow\"\nreordered_fragments = \"pass\"\n\
             quic = {{ server_id_length = 2 }}\non_down = \"keep\"\nring_slots = 1024"
        ),
        "address = \"10.0.0.11\"\nserver_id = \"0aFf\"",
    );
    let options = &of.options;
    assert_eq!(options.udp, UdpFlows::Sticky);
    assert_eq!(options.spread, Spread::Source);
    let sources = options.sources.as_ref().unwrap();
    let words = |list: &[ipnet::IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(words(&sources.allow), ["192.0.2.0/24", "192.0.2.7/32"]);
    assert_eq!(words(&sources.deny), ["192.0.2.128/25"]);
    assert_eq!(options.fragments, Fragments::Follow(Fate::Pass));
    assert_eq!(options.quic.unwrap().server_id_length.bytes(), 2);
    assert_eq!(
        of.backends[0].server_id.as_ref().unwrap().bytes(),
        [0x0a, 0xff]
    );
    assert_eq!(options.on_down, OnDown::Keep);
    assert!(matches!(of.ring_slots, RingSize::Fixed(slots) if slots.count() == 1024));

    let of = service(
        &format!("{TCP}new_connections_per_source = {{ per_second = 5 }}\nfragments = \"pass\""),
        BACKEND,
    );
    let limit = of.options.limit.unwrap();
    assert_eq!((limit.per_second.get(), limit.burst.get()), (5, 5));
    assert_eq!(of.options.fragments, Fragments::Refuse(Fate::Pass));

    let of = service(
        "vip = \"198.51.100.10\"\nport = \"any\"\nspread = \"port\"",
        BACKEND,
    );
    assert_eq!(of.options.spread, Spread::Port);
    let of = service(
        &format!("{TCP}mode = \"nat\""),
        "address = \"10.0.0.11\"\nport = 8080",
    );
    assert_eq!(of.backends[0].port.unwrap().get(), 8080);
    assert_eq!(of.options, crate::model::Options::default());
}

/// The lines of a service with a check.
fn checked(lines: &str) -> String {
    format!("{TCP}{lines}\nhealth = {{ type = \"tcp\" }}")
}

#[test]
fn what_is_done_about_underperformers_is_as_it_says() {
    let of = service(
        &checked(
            "slow_start = \"1m\"\npanic_below = 0.0\nejection = { underperformers = \"alert\", \
             traffic = false, slow = 3.0, errors = 0.05, latency_floor = \"50us\", budget = 0.2, hold = \"2m\" }",
        ),
        BACKEND,
    );
    assert_eq!(of.options.slow_start, Some(Duration::from_mins(1)));
    assert_eq!(of.options.panic_below, Part::NONE);
    let expected = Ejection {
        underperformers: Underperformers::Tell,
        senses: Senses::Probes,
        slow: Slowness::new(3.0).unwrap(),
        errors: Part::new(0.05).unwrap(),
        floor: Duration::from_micros(50),
        budget: Part::new(0.2).unwrap(),
        hold: Duration::from_mins(2),
    };
    assert_eq!(of.options.ejection, expected);

    let of = service(&checked(""), BACKEND);
    assert_eq!(of.options.slow_start, None);
    assert_eq!(of.options.ejection, Ejection::default());
}

#[test]
fn traffic_counts_where_it_tells_of_backends_and_not_of_clients() {
    for (lines, senses) in [
        ("", Senses::ProbesAndTraffic),
        ("ejection = { slow = 3.0 }", Senses::ProbesAndTraffic),
        ("spread = \"source\"", Senses::Probes),
        (
            "spread = \"source\"\nejection = { traffic = true }",
            Senses::ProbesAndTraffic,
        ),
    ] {
        let of = service(&checked(lines), BACKEND);
        assert_eq!(of.options.ejection.senses, senses, "{lines}");
    }
    let of = service(&checked("measure_one_in = 0"), BACKEND);
    assert!(!of.is_measured());
    let lines = checked("measure_one_in = 0\nejection = { traffic = true }");
    let found = findings(&file("", &lines, &[BACKEND]));
    assert!(
        found[0].problem.contains("nothing is measured"),
        "{found:#?}"
    );
}

#[test]
fn each_mistake_about_underperformers_is_named_at_its_place() {
    for (line, key, problem, remedy) in [
        ("slow_start = \"1ms\"", "slow_start", "1ms", "from 1s to 1h"),
        ("panic_below = 1.5", "panic_below", "is 1.5", "from 0"),
        ("ejection = 7", "ejection", "", "ejection = {"),
        (
            "ejection = { underperformers = \"kill\" }",
            "ejection.underperformers",
            "is \"kill\"",
            "\"alert\"",
        ),
        (
            "ejection = { slow = 1.0 }",
            "ejection.slow",
            "is 1",
            "from 1.5",
        ),
        (
            "ejection = { traffic = 1 }",
            "ejection.traffic",
            "",
            "true or false",
        ),
        (
            "ejection = { errors = 0.0 }",
            "ejection.errors",
            "is 0",
            "from 0.001",
        ),
        (
            "ejection = { budget = 0.9 }",
            "ejection.budget",
            "is 0.9",
            "to 0.5",
        ),
        (
            "ejection = { latency_floor = \"1h\" }",
            "ejection.latency_floor",
            "1h",
            "to 10s",
        ),
        (
            "ejection = { hold = \"1s\" }",
            "ejection.hold",
            "1s",
            "from 20s",
        ),
    ] {
        let text = file("", &checked(line), &[BACKEND]);
        let key = format!("services[0].{key}");
        assert_found(&text, line, &key, problem, remedy);
    }
    for line in [
        "slow_start = \"1m\"",
        "panic_below = 0.3",
        "ejection = { slow = 3.0 }",
    ] {
        let text = file("", &format!("{TCP}{line}"), &[BACKEND]);
        let key = line.split(' ').next().unwrap();
        let key = format!("services[0].{key}");
        assert_found(&text, line, &key, "check", "add [services.health]");
    }
}

#[test]
fn in_mode_snat_every_udp_flow_is_remembered() {
    let of = service(&format!("{UDP}mode = \"snat\""), BACKEND);
    assert_eq!(of.options.udp, UdpFlows::Sticky);
}

#[test]
fn shared_tables_are_what_they_say() {
    let plain = config(&file("", TCP, &[BACKEND]));
    assert_eq!(
        (plain.snat, plain.tunnel, plain.tracking),
        (None, Tunnel::default(), Tracking::default())
    );
    assert_eq!(plain.data_plane.evenness, Evenness::DEFAULT);
    let full = config(&file(
        "evenness = 0.1\n[snat]\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nfirst_port = 2048\n\
         ports = 4096\n[tunnel]\nsource_ipv4 = \"10.127.0.0/16\"\nsource_ipv6 = \
         \"2001:db8:0:7f::/96\"\ngue_port = 7000\n[tracking]\nwindow = \"1m\"\nidle_tcp = \"2h\"\n\
         idle_udp = \"30s\"\nclosing = \"90s\"\nfresh = 2000\nestablished = 3000",
        TCP,
        &[BACKEND],
    ));
    assert!((full.data_plane.evenness.fraction() - 0.1).abs() < 1e-9);
    let snat = full.snat.unwrap();
    let addresses: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
    assert_eq!(snat.addresses, addresses);
    assert_eq!(snat.ports.to_string(), "2048-6143");
    assert_eq!(
        full.tunnel.source_ipv4,
        Some("10.127.0.0/16".parse().unwrap())
    );
    assert_eq!(
        full.tunnel.source_ipv6,
        Some("2001:db8:0:7f::/96".parse().unwrap())
    );
    assert_eq!(full.tunnel.gue_port.get(), 7000);
    let seconds = Duration::from_secs;
    let tracking = full.tracking;
    assert_eq!(
        (
            tracking.window,
            tracking.idle_tcp,
            tracking.idle_udp,
            tracking.closing
        ),
        (seconds(60), seconds(7200), seconds(30), seconds(90))
    );
    assert_eq!(
        (tracking.fresh.get(), tracking.established.get()),
        (2000, 3000)
    );
    let defaults = config(&file(
        "[snat]\naddresses = [\"192.0.2.1\"]\n[tunnel]\n[tracking]",
        TCP,
        &[BACKEND],
    ));
    assert_eq!(defaults.snat.unwrap().ports, PortRange::DEFAULT);
}

/// Asserts that a file has one mistake: at the line that begins with `line`, or the first line for
/// an empty one.
fn assert_found(text: &str, line: &str, field: &str, problem: &str, remedy: &str) {
    let found = findings(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    let at = text.lines().position(|own| own.starts_with(line)).unwrap();
    assert_eq!(
        (found[0].line, found[0].field.as_str()),
        (at + 1, field),
        "{text}\n{found:#?}"
    );
    assert!(found[0].problem.contains(problem), "{text}\n{found:#?}");
    assert!(found[0].remedy.contains(remedy), "{text}\n{found:#?}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn each_mistake_in_a_service_is_named_at_its_place() {
    let of = "services[0]";
    // The service's lines, the wrong line, its key, a part of the complaint and of the remedy.
    for (base, line, key, problem, remedy) in [
        (
            TCP,
            "mode = \"vpn\"",
            "mode",
            "is \"vpn\"",
            "\"dsr\" or \"ipip\" or \"gue\"",
        ),
        (
            TCP,
            "mode = \"snat\"\n",
            "mode",
            "no IPv4 address",
            "[snat]",
        ),
        (
            TCP,
            "udp = \"sticky\"",
            "udp",
            "nothing for tcp",
            "protocol = \"udp\"",
        ),
        (
            UDP,
            "udp = \"both\"",
            "udp",
            "is \"both\"",
            "\"hash\" or \"sticky\"",
        ),
        (
            TCP,
            "spread = \"even\"",
            "spread",
            "is \"even\"",
            "\"flow\" or \"source\"",
        ),
        (
            TCP,
            "spread = \"port\"",
            "spread",
            "port 80",
            "port = \"any\"",
        ),
        (TCP, "allow = []", "allow", "empty", "192.0.2.0/24"),
        (
            TCP,
            "allow = [\"x\"]",
            "allow",
            "\"x\" is no prefix",
            "192.0.2.0/24",
        ),
        (
            TCP,
            "deny = [\"10.0.0.1/8\"]",
            "deny",
            "the prefix is 10.0.0.0/8",
            "192.0.2.0/24",
        ),
        (
            TCP,
            "deny = [\"10.0.0.0/33\"]",
            "deny",
            "no prefix",
            "192.0.2.0/24",
        ),
        (
            TCP,
            "deny = [\"2001:db8::/32\"]",
            "deny",
            "is IPv6",
            "192.0.2.0/24",
        ),
        (
            TCP,
            "deny = [\"10.0.0.1\", \"10.0.0.1/32\"]",
            "deny",
            "twice",
            "192.0.2.0/24",
        ),
        (
            TCP,
            "fragments = \"burn\"",
            "fragments",
            "is \"burn\"",
            "\"follow\"",
        ),
        (
            TCP,
            "reordered_fragments = \"keep\"",
            "reordered_fragments",
            "is \"keep\"",
            "\"drop\"",
        ),
        (
            TCP,
            "on_down = \"drop\"",
            "on_down",
            "is \"drop\"",
            "\"rehash\" or \"keep\"",
        ),
        (
            TCP,
            "quic = { server_id_length = 4 }",
            "quic",
            "nothing for tcp",
            "udp",
        ),
        (
            TCP,
            "new_connections_per_source = 5",
            "new_connections_per_source",
            "expected a table",
            "{ per_second",
        ),
        (
            TCP,
            "new_connections_per_source = { per_second = 0 }",
            "new_connections_per_source.per_second",
            "is 0",
            "1000000",
        ),
        (
            TCP,
            "new_connections_per_source = { burst = 1 }",
            "new_connections_per_source.per_second",
            "missing",
            "1000000",
        ),
        (
            TCP,
            "new_connections_per_source = { per_second = 1, burst = 1000001 }",
            "new_connections_per_source.burst",
            "is 1000001",
            "1000000",
        ),
        (
            TCP,
            "new_connections_per_source = { per_second = 1, brust = 1 }",
            "new_connections_per_source.brust",
            "unknown",
            "burst",
        ),
        (
            UDP,
            "new_connections_per_source = { per_second = 1 }",
            "new_connections_per_source",
            "nothing for udp",
            "tcp",
        ),
        (
            TCP,
            "ring_slots = 1000",
            "ring_slots",
            "is 1000",
            "leave it out",
        ),
    ] {
        let backend = if key == "quic" {
            "address = \"10.0.0.11\"\nserver_id = \"00112233\""
        } else {
            BACKEND
        };
        let text = file("", &format!("{base}{line}"), &[backend]);
        assert_found(&text, line.trim(), &format!("{of}.{key}"), problem, remedy);
    }
    for (lines, line, key, problem, remedy) in [
        (
            "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
            "deny",
            "deny",
            "allowed, too",
            "longest",
        ),
        (
            "fragments = \"drop\"\nreordered_fragments = \"drop\"",
            "reordered",
            "reordered_fragments",
            "all of them",
            "\"follow\"",
        ),
    ] {
        let text = file("", &format!("{TCP}{lines}"), &[BACKEND]);
        assert_found(&text, line, &format!("{of}.{key}"), problem, remedy);
    }
}

#[test]
fn each_mistake_about_quic_is_named_at_its_place() {
    let quic = format!("{UDP}quic = {{ server_id_length = 2 }}");
    for (id, problem) in [
        ("\"0a\"", "\"0a\""),
        ("\"0a0\"", "\"0a0\""),
        ("\"0aXY\"", "0aXY"),
        ("10", "invalid type"),
    ] {
        let text = file(
            "",
            &quic,
            &[&format!("address = \"10.0.0.11\"\nserver_id = {id}")],
        );
        let field = "services[0].backends[0].server_id";
        assert_found(&text, "server_id =", field, problem, "4 hexadecimal digits");
    }
    let text = file("", &quic, &[BACKEND]);
    let field = "services[0].backends[0].server_id";
    assert_found(&text, "[[services.backends]]", field, "missing", "\"002a\"");
    let text = file("", UDP, &["address = \"10.0.0.11\"\nserver_id = \"0a\""]);
    assert_found(&text, "server_id", field, "connection IDs", "quic");
    let twice = [
        "address = \"10.0.0.11\"\nserver_id = \"0aff\"",
        "address = \"10.0.0.12\"\nserver_id = \"0aFF\"",
    ];
    let text = file("", &quic, &twice);
    assert_found(
        &text,
        "server_id = \"0aFF\"",
        "services[0].backends[1].server_id",
        "0aff stands in line",
        "its own",
    );
    for length in [0, 16] {
        let line = format!("quic = {{ server_id_length = {length} }}");
        let text = file("", &format!("{UDP}{line}"), &[BACKEND]);
        assert_found(
            &text,
            "quic",
            "services[0].quic.server_id_length",
            "is",
            "1 to 15",
        );
    }
    let text = file(
        "[snat]\naddresses = [\"192.0.2.1\"]",
        &format!("{quic}\nmode = \"snat\""),
        &["address = \"10.0.0.11\"\nserver_id = \"0aff\""],
    );
    assert_found(
        &text,
        "quic",
        "services[0].quic",
        "mode snat",
        "another mode",
    );
}

#[test]
fn a_port_of_its_own_is_for_modes_that_change_ports() {
    let backend = "address = \"10.0.0.11\"\nport = 8080";
    let field = "services[0].backends[0].port";
    for mode in ["dsr", "ipip", "gue"] {
        let text = file("", &format!("{TCP}mode = \"{mode}\""), &[backend]);
        assert_found(
            &text,
            "port = 8080",
            field,
            &format!("mode {mode}"),
            "\"nat\"",
        );
    }
    let any = "vip = \"198.51.100.10\"\nport = \"any\"\nmode = ";
    let text = file("", &format!("{any}\"nat\""), &[backend]);
    assert_found(
        &text,
        "port = 8080",
        field,
        "meet at 8080",
        "mode = \"snat\"",
    );
    // In mode `snat` the flow's entry tells.
    service(&format!("{any}\"snat\""), backend);
    service(&format!("{any}\"nat\""), BACKEND);
    let text = file(
        "",
        &format!("{TCP}mode = \"nat\""),
        &["address = \"10.0.0.11\"\nport = 65536"],
    );
    assert_found(&text, "port = 65536", field, "65536", "1 to 65535");
}

/// Two services of mode `nat` with one backend each, `(vip, port, backend's lines)`.
fn two([first, second]: [(&str, &str, &str); 2]) -> String {
    let of = |(vip, port, _): (&str, &str, &str)| {
        format!("vip = \"198.51.100.{vip}\"\nport = {port}\nmode = \"nat\"")
    };
    let text = file("", &of(first), &[first.2]);
    format!(
        "{text}{}[[services.backends]]\n{}\n",
        lines(&of(second)),
        second.2
    )
}

#[test]
fn replies_in_mode_nat_must_tell_their_service() {
    let (b, b80, b8080) = (
        "address = \"10.0.0.11\"",
        "address = \"10.0.0.11\"\nport = 80",
        "address = \"10.0.0.11\"\nport = 8080",
    );
    for good in [
        [("10", "80", b), ("10", "81", b)],
        [("10", "80", b), ("11", "80", b8080)],
        [("10", "80", b), ("10", "\"any\"", b)],
        [("10", "\"any\"", b), ("10", "80", b80)],
        [("10", "80", b), ("11", "80", "address = \"10.0.0.12\"")],
    ] {
        config(&two(good));
    }
    for bad in [
        [("10", "80", b), ("11", "80", b)],
        [("10", "80", b), ("10", "81", b80)],
        [("10", "8080", b), ("11", "80", b8080)],
        [("10", "\"any\"", b), ("11", "\"any\"", b)],
        [("10", "\"any\"", b), ("11", "80", b)],
        [("11", "80", b), ("10", "\"any\"", b)],
        // The VIP's own port 8080 and its port 80 would meet at the backend's port 8080.
        [("10", "\"any\"", b), ("10", "80", b8080)],
    ] {
        let text = two(bad);
        let found = findings(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert_eq!(found[0].field, "services[1].backends[0].address", "{text}");
        let last = text.lines().collect::<Vec<_>>();
        let at = last
            .iter()
            .rposition(|line| *line == "[[services.backends]]")
            .unwrap();
        assert_eq!(found[0].line, at + 1, "{text}\n{found:#?}");
        assert!(
            found[0].problem.contains("replies from 10.0.0.11"),
            "{found:#?}"
        );
        assert!(found[0].remedy.contains("snat"), "{found:#?}");
    }
    // TCP and UDP do not meet.
    let text = two([("10", "80", b), ("11", "80", b)]).replacen(
        "port = 80",
        "port = 80\nprotocol = \"udp\"",
        1,
    );
    config(&text);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn each_mistake_in_a_shared_table_is_named_at_its_place() {
    for (table, line, field, problem, remedy) in [
        (
            "snat",
            "ports = 4096",
            "snat.addresses",
            "missing",
            "64 addresses",
        ),
        (
            "snat",
            "addresses = []",
            "snat.addresses",
            "there are 0",
            "64",
        ),
        (
            "snat",
            "addresses = [\"10.0.0.300\"]",
            "snat.addresses",
            "not an IP",
            "64",
        ),
        (
            "snat",
            "addresses = [\"127.0.0.1\"]",
            "snat.addresses",
            "loopback",
            "64",
        ),
        (
            "snat",
            "addresses = [\"10.1.0.1\", \"10.1.0.1\"]",
            "snat.addresses",
            "twice",
            "64",
        ),
        (
            "snat",
            "addresses = [\"198.51.100.10\"]",
            "snat.addresses",
            "is the VIP",
            "nothing but",
        ),
        (
            "snat",
            "addresses = [\"10.0.0.11\"]",
            "snat.addresses",
            "is the backend",
            "nothing but",
        ),
        (
            "tunnel",
            "source_ipv4 = \"10.0.0.0/4\"",
            "tunnel.source_ipv4",
            "the prefix is",
            "8 bits",
        ),
        (
            "tunnel",
            "source_ipv4 = \"16.0.0.0/4\"",
            "tunnel.source_ipv4",
            "too short",
            "8 bits",
        ),
        (
            "tunnel",
            "source_ipv4 = \"fd00::/96\"",
            "tunnel.source_ipv4",
            "is IPv6",
            "8 bits",
        ),
        (
            "tunnel",
            "source_ipv4 = \"224.0.0.0/24\"",
            "tunnel.source_ipv4",
            "multicast",
            "8 bits",
        ),
        (
            "tunnel",
            "source_ipv6 = \"fd00::/95\"",
            "tunnel.source_ipv6",
            "too short",
            "96 bits",
        ),
        (
            "tunnel",
            "source_ipv6 = \"10.0.0.0/24\"",
            "tunnel.source_ipv6",
            "is IPv4",
            "96 bits",
        ),
        ("tunnel", "gue_port = 0", "tunnel.gue_port", "is 0", "65535"),
        ("tunnel", "gue = 1", "tunnel.gue", "unknown", "gue_port"),
        (
            "state",
            "directory = \"state\"",
            "state.directory",
            "\"state\"",
            "absolute path",
        ),
        (
            "state",
            "keep_events = \"1h\"",
            "state.keep_events",
            "1h",
            "from 1day",
        ),
        (
            "state",
            "max_journal_mib = 0",
            "state.max_journal_mib",
            "is 0",
            "1048576",
        ),
        ("state", "dir = 1", "state.dir", "unknown", "directory"),
        (
            "tracking",
            "window = \"9s\"",
            "tracking.window",
            "9s",
            "from 10s to 1day",
        ),
        (
            "tracking",
            "idle_tcp = \"1s\"",
            "tracking.idle_tcp",
            "1s",
            "from 1m to 7days",
        ),
        (
            "tracking",
            "idle_udp = \"2h\"",
            "tracking.idle_udp",
            "2h",
            "from 5s to 1h",
        ),
        (
            "tracking",
            "closing = \"75\"",
            "tracking.closing",
            "75",
            "as in \"1m 15s\"",
        ),
        (
            "tracking",
            "fresh = 10",
            "tracking.fresh",
            "is 10",
            "1024 to 16777216",
        ),
        (
            "tracking",
            "established = 100000000",
            "tracking.established",
            "is 1",
            "16777216",
        ),
    ] {
        let text = file(&format!("[{table}]\n{line}"), TCP, &[BACKEND]);
        let at = if problem == "missing" { "[snat]" } else { line };
        assert_found(&text, at, field, problem, remedy);
    }
    for (line, field, problem, remedy) in [
        ("first_port = 0", "first_port", "is 0", "65535"),
        ("ports = 1000", "ports", "is 1000", "power of two"),
        ("ports = 128", "ports", "is 128", "256"),
        ("ports = 65536", "ports", "is 65536", "32768"),
        (
            "first_port = 40000",
            "first_port",
            "32768 ports from 40000 on",
            "lower",
        ),
    ] {
        let tables = format!("[snat]\naddresses = [\"192.0.2.1\"]\n{line}");
        let text = file(&tables, TCP, &[BACKEND]);
        assert_found(&text, line, &format!("snat.{field}"), problem, remedy);
    }
    for fraction in ["0", "0.6", "\"2 %\""] {
        let text = file(&format!("evenness = {fraction}"), TCP, &[BACKEND]);
        assert_found(&text, "evenness", "data_plane.evenness", "", "0.02");
    }
    for table in ["snat", "tunnel", "tracking"] {
        let text = format!("{table} = 3\n{}", file("", TCP, &[BACKEND]));
        assert_found(
            &text,
            table,
            table,
            "expected a table",
            &format!("[{table}]"),
        );
    }
}

#[test]
fn more_prefixes_than_fit_are_refused() {
    let list: Vec<String> = (0..=32_768u32)
        .map(|n| format!("\"{}\"", std::net::Ipv4Addr::from_bits(0x0a00_0000 + n)))
        .collect();
    let text = file("", &format!("{TCP}deny = [{}]", list.join(",")), &[BACKEND]);
    assert_found(&text, "", "services", "32769", "at most 32768");
}

#[test]
fn snat_needs_an_address_of_the_services_family() {
    let text = file(
        "[snat]\naddresses = [\"192.0.2.1\"]",
        "vip = \"2001:db8::1\"\nport = 80\nmode = \"snat\"",
        &["address = \"fd00::1\""],
    );
    assert_found(
        &text,
        "mode",
        "services[0].mode",
        "no IPv6 address",
        "[snat]",
    );
}
