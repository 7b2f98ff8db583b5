mod services;

use std::time::Duration;

use super::*;
use crate::model::{AgentCheck, Ejection, Part, ProbeKind, RingSize, ServicePort};

const EXAMPLE: &str = include_str!("../../../docs/evenkeel.toml");

const MINIMAL: &str = r#"[data_plane]
interfaces = ["eth0"]
[[services]]
name = "web"
vip = "198.51.100.10"
port = 80
[[services.backends]]
address = "10.0.0.11"
"#;

fn findings(text: &str) -> Vec<Finding> {
    match parse("f.toml", text) {
        Ok(config) => panic!("taken for valid: {config:?}"),
        Err(findings) => findings.iter().cloned().collect(),
    }
}

#[test]
fn the_annotated_example_says_what_it_says() {
    let config = parse("evenkeel.toml", EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.services.len(), 3);
    let check = config.services[0].health.as_ref().unwrap();
    let ProbeKind::Http(http) = &check.kind else {
        panic!("{check:?}")
    };
    assert_eq!(http.status, [200..=299, 304..=304]);
    assert_eq!(config.services[0].backends[0].weight.number(), 2);
    // What the example says of defaults is what they are.
    let options = &config.services[0].options;
    let agent = options.agent.as_ref().unwrap();
    let defaults = (AgentCheck::INTERVAL, AgentCheck::TIMEOUT, AgentCheck::KEEP);
    assert_eq!((agent.interval, agent.timeout, agent.keep), defaults);
    assert_eq!((agent.port.get(), agent.send.as_str()), (8008, ""));
    assert_eq!(options.ejection, Ejection::default());
    assert_eq!(options.panic_below, Part::HALF);
    assert_eq!(options.slow_start, Some(Duration::from_secs(30)));
    assert_eq!(&*config.services[2].backends[0].name, "2001:db8:1::11");
}

#[test]
fn a_minimal_file_gets_the_defaults_that_the_example_names() {
    let config = parse("f.toml", MINIMAL).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        config.data_plane.pins.to_str(),
        Some("/sys/fs/bpf/evenkeel")
    );
    assert_eq!(
        config.admin.socket.to_str(),
        Some("/run/evenkeel/evenkeel.sock")
    );
    let service = &config.services[0];
    assert_eq!(service.ring_slots, RingSize::Auto);
    assert!(matches!(service.key.port, ServicePort::Exact(port) if port.get() == 80));
    assert!(service.health.is_none());
}

#[test]
fn the_schema_in_the_documentation_is_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/evenkeel.schema.json");
    let now = format!("{:#}\n", schema());
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        fs::write(path, &now).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == now,
        "docs/evenkeel.schema.json is not what the types say: regenerate it with \
         `EVENKEEL_BLESS=1 cargo test -p lb-userspace schema`"
    );
}

/// Each replacement in the minimal file, with the line, the field and a part of the complaint.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn each_mistake_is_named_at_its_place() {
    let health = |lines: &str| format!("port = 80\n[services.health]\n{lines}\n");
    let mut cases: Vec<(&str, String, usize, &str, &str)> = vec![
        (
            "interfaces = [\"eth0\"]",
            "interfaces = []".into(),
            2,
            "data_plane.interfaces",
            "empty",
        ),
        (
            "interfaces = [\"eth0\"]",
            "interfaces = 3".into(),
            2,
            "data_plane.interfaces",
            "invalid type",
        ),
        (
            "[\"eth0\"]",
            "[\"a\", \"a\"]".into(),
            2,
            "data_plane.interfaces",
            "twice",
        ),
        (
            "[\"eth0\"]",
            "[\"eth0\"]\nxdp_mode = \"fast\"".into(),
            3,
            "data_plane.xdp_mode",
            "fast",
        ),
        (
            "[\"eth0\"]",
            "[\"eth0\"]\npins = \"here\"".into(),
            3,
            "data_plane.pins",
            "absolute",
        ),
        (
            "[\"eth0\"]",
            "[\"eth0\"]\nhash_seed = -1".into(),
            3,
            "data_plane.hash_seed",
            "-1",
        ),
        (
            "[\"eth0\"]",
            "[\"eth0\"]\ninterface = 1".into(),
            3,
            "data_plane.interface",
            "unknown key",
        ),
        (
            "[data_plane]",
            "[admin]\ngroup = \"\"\n[data_plane]".into(),
            2,
            "admin.group",
            "empty",
        ),
        (
            "name = \"web\"",
            String::new(),
            3,
            "services[0].name",
            "missing",
        ),
        ("\"web\"", "\"Web!\"".into(), 4, "services[0].name", "Web!"),
        (
            "198.51.100.10",
            "198.51.100".into(),
            5,
            "services[0].vip",
            "not an IP address",
        ),
        (
            "198.51.100.10",
            "224.0.0.1".into(),
            5,
            "services[0].vip",
            "multicast",
        ),
        (
            "198.51.100.10",
            "::ffff:10.0.0.1".into(),
            5,
            "services[0].vip",
            "disguise",
        ),
        (
            "198.51.100.10",
            "10.0.0.11".into(),
            7,
            "services[0].backends[0].address",
            "is the VIP",
        ),
        (
            "port = 80",
            "port = 0".into(),
            6,
            "services[0].port",
            "is 0",
        ),
        (
            "port = 80",
            "port = \"all\"".into(),
            6,
            "services[0].port",
            "all",
        ),
        (
            "port = 80",
            "port = 80\nprotocol = \"sctp\"".into(),
            7,
            "services[0].protocol",
            "sctp",
        ),
        (
            "port = 80",
            "port = 80\nmode = \"dsl\"".into(),
            7,
            "services[0].mode",
            "is \"dsl\"",
        ),
        (
            "port = 80",
            "port = 80\nring_slots = 100".into(),
            7,
            "services[0].ring_slots",
            "is 100",
        ),
        (
            "port = 80",
            "port = 80\non_empty = \"burn\"".into(),
            7,
            "services[0].on_empty",
            "burn",
        ),
        (
            "port = 80",
            health(""),
            7,
            "services[0].health.type",
            "missing",
        ),
        (
            "port = 80",
            health("type = \"ping\""),
            8,
            "services[0].health.type",
            "ping",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nport = 70000"),
            9,
            "services[0].health.port",
            "70000",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\ninterval = \"1\""),
            9,
            "services[0].health.interval",
            "1",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\ninterval = \"1ms\""),
            9,
            "services[0].health.interval",
            "1ms",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\ntimeout = \"1s\""),
            9,
            "services[0].health.timeout",
            "not shorter",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nrise = 0"),
            9,
            "services[0].health.rise",
            "is 0",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nfall = \"3\""),
            9,
            "services[0].health.fall",
            "invalid type",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\npath = \"/\""),
            9,
            "services[0].health.path",
            "no use for it",
        ),
        (
            "port = 80",
            health("type = \"http\"\npath = \"x\""),
            9,
            "services[0].health.path",
            "x",
        ),
        (
            "port = 80",
            health("type = \"http\"\nhost = \"\""),
            9,
            "services[0].health.host",
            "\"\"",
        ),
        (
            "port = 80",
            health("type = \"http\"\nstatus = [99]"),
            9,
            "services[0].health.status",
            "99",
        ),
        (
            "port = 80",
            health("type = \"http\"\nstatus = [\"3-2\"]"),
            9,
            "services[0].health.status",
            "3-2",
        ),
        (
            "port = 80",
            health("type = \"http\"\nbody = \"\""),
            9,
            "services[0].health.body",
            "empty",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nvia = \"x\""),
            9,
            "services[0].health.via",
            "is",
        ),
        (
            "port = 80",
            health("type = \"icmp\"\nvia = \"vip\""),
            9,
            "services[0].health.via",
            "no port",
        ),
        (
            "port = 80",
            health("type = \"icmp\"\nport = 80"),
            9,
            "services[0].health.port",
            "no ports",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nclient_mtu = 100"),
            9,
            "services[0].health.client_mtu",
            "is 100",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nvia = \"direct\"\nclient_mtu = 1500"),
            10,
            "services[0].health.client_mtu",
            "does not go",
        ),
        (
            "port = 80",
            health("type = \"tcp\"\nsource = \"x\""),
            9,
            "services[0].health.source",
            "not an IP",
        ),
        (
            "port = 80",
            health("type = \"http\"\nmethod = \"G T\""),
            9,
            "services[0].health.method",
            "G T",
        ),
        (
            "port = 80",
            health("type = \"http\"\nheaders = [\"x\"]"),
            9,
            "services[0].health.headers",
            "no colon",
        ),
        (
            "port = 80",
            health("type = \"http\"\nheaders = [\"Host: x\"]"),
            9,
            "services[0].health.headers",
            "not for a probe",
        ),
        (
            "port = 80",
            health("type = \"http\"\nbody_regex = \"(\""),
            9,
            "services[0].health.body_regex",
            "unclosed",
        ),
        (
            "port = 80",
            health("type = \"http\"\nbody = \"a\"\nbody_regex = \"b\""),
            10,
            "services[0].health.body_regex",
            "already",
        ),
        (
            "port = 80",
            health("type = \"http\"\nca = \"/ca.pem\""),
            9,
            "services[0].health.ca",
            "no use for it",
        ),
        (
            "port = 80",
            health("type = \"https\"\nca = \"ca.pem\""),
            9,
            "services[0].health.ca",
            "not absolute",
        ),
        (
            "port = 80",
            health("type = \"https\"\nverify = false\nca = \"/ca.pem\""),
            10,
            "services[0].health.ca",
            "nothing is verified",
        ),
        (
            "port = 80",
            health("type = \"tls\"\nserver_name = \"a b\""),
            9,
            "services[0].health.server_name",
            "a b",
        ),
        (
            "port = 80",
            health("type = \"grpc\"\nserver_name = \"a\""),
            9,
            "services[0].health.server_name",
            "no use for it",
        ),
        (
            "port = 80",
            health("type = \"udp\"\nport = 53\nsend_hex = \"0\""),
            10,
            "services[0].health.send_hex",
            "Odd",
        ),
        (
            "port = 80",
            health("type = \"udp\"\nport = 53"),
            7,
            "services[0].health.send",
            "missing",
        ),
        (
            "port = 80",
            health("type = \"udp\"\nsend = \"x\""),
            7,
            "services[0].health.port",
            "UDP port",
        ),
        (
            "port = 80",
            health("type = \"command\"\ncommand = [\"check\"]"),
            9,
            "services[0].health.command",
            "not absolute",
        ),
        (
            "port = 80",
            health("type = \"command\""),
            7,
            "services[0].health.command",
            "missing",
        ),
        (
            "port = 80",
            "port = \"any\"\n[services.health]\ntype = \"tcp\"".into(),
            7,
            "services[0].health.port",
            "missing",
        ),
        (
            "10.0.0.11",
            "127.0.0.1".into(),
            8,
            "services[0].backends[0].address",
            "loopback",
        ),
        (
            "address = ",
            "wieght = 1\naddress = ".into(),
            8,
            "services[0].backends[0].wieght",
            "unknown key",
        ),
        (
            "address = ",
            "weight = -1\naddress = ".into(),
            8,
            "services[0].backends[0].weight",
            "is -1",
        ),
        (
            "address = ",
            "weight = 0\naddress = ".into(),
            3,
            "services[0].backends",
            "every weight is 0",
        ),
        (
            "address = ",
            "capacity = 0\naddress = ".into(),
            8,
            "services[0].backends[0].capacity",
            "is 0",
        ),
        (
            "address = \"10.0.0.11\"",
            String::new(),
            7,
            "services[0].backends[0].address",
            "missing",
        ),
        (
            "[[services.backends]]\naddress = \"10.0.0.11\"",
            String::new(),
            3,
            "services[0].backends",
            "none",
        ),
        ("port = 80", "port = = 80".into(), 6, "services[0].port", ""),
        (
            "[data_plane]",
            "admin = [\"/x.sock\", \"adm\"]\n[data_plane]".into(),
            1,
            "admin",
            "expected a table",
        ),
        (
            "[data_plane]",
            "admin = 3\n[data_plane]".into(),
            1,
            "admin",
            "expected a table",
        ),
        (
            "[data_plane]",
            "admin = 1979-05-27\n[data_plane]".into(),
            1,
            "admin",
            "a date",
        ),
        (
            "[\"eth0\"]",
            "[\"eth0\"]\nhash_seed = 9223372036854775808".into(),
            3,
            "data_plane.hash_seed",
            "9223372036854775808",
        ),
        (
            "[\"eth0\"]",
            format!("[\"eth0\"]\nhash_seed = 1{}", "0".repeat(60)),
            3,
            "data_plane.hash_seed",
            "overflow",
        ),
        (
            "port = 80",
            "port = 80\nhealth = [\"tcp\"]".into(),
            7,
            "services[0].health",
            "expected a table",
        ),
        (
            "[[services.backends]]\naddress = \"10.0.0.11\"",
            "backends = 3".into(),
            7,
            "services[0].backends",
            "expected a list",
        ),
        (
            "[[services.backends]]\naddress = \"10.0.0.11\"",
            "backends = [{ address = \"10.0.0.11\" }, 3]".into(),
            7,
            "services[0].backends[1]",
            "expected a table",
        ),
    ];
    for path in ["/a b", "/a#b", "*", "/ä", "/\\u0000"] {
        let lines = format!("type = \"http\"\npath = \"{path}\"");
        cases.push((
            "port = 80",
            health(&lines),
            9,
            "services[0].health.path",
            "is",
        ));
    }
    for host in [
        "me@example.org",
        "example.org:99999",
        "example.org:",
        "example.org:+80",
        "example.org:0",
        ":80",
        "a/b",
        "[::1",
        "a b",
        "ä",
    ] {
        let lines = format!("type = \"http\"\nhost = \"{host}\"");
        cases.push((
            "port = 80",
            health(&lines),
            9,
            "services[0].health.host",
            "is",
        ));
    }
    for status in ["+200", "0200", "200-+299"] {
        let lines = format!("type = \"http\"\nstatus = [\"{status}\"]");
        cases.push((
            "port = 80",
            health(&lines),
            9,
            "services[0].health.status",
            "no range",
        ));
    }
    for name in [
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "a\\u0007",
        "ä",
        "\\u00a0",
        "a234567890123456",
    ] {
        cases.push(("eth0", name.into(), 2, "data_plane.interfaces", "cannot be"));
    }
    let pins = "[\"eth0\"]\npins = \"/a\\u0000b\"";
    cases.push(("[\"eth0\"]", pins.into(), 3, "data_plane.pins", "zero byte"));
    for (from, to, line, field, part) in cases {
        let text = MINIMAL.replacen(from, &to, 1);
        assert_ne!(text, MINIMAL, "{from} is not in the file");
        let found = findings(&text);
        assert_eq!(found.len(), 1, "{to}: {found:#?}");
        assert_eq!(
            (found[0].line, found[0].field.as_str()),
            (line, field),
            "{to}: {found:#?}"
        );
        assert!(found[0].problem.contains(part), "{to}: {found:#?}");
        assert!(!found[0].remedy.is_empty(), "{to}: {found:#?}");
    }
}

#[test]
fn what_stands_twice_names_its_first_place() {
    let again = "[[services.backends]]\nname = \"b\"\naddress = \"10.0.0.11\"\n";
    let found = findings(&format!("{MINIMAL}{again}"));
    assert_eq!((found[0].line, found.len()), (11, 1), "{found:#?}");
    assert!(found[0].problem.contains("line 8"), "{found:#?}");
    let service = MINIMAL.split_once("[[services]]").unwrap().1;
    let found = findings(&format!("{MINIMAL}[[services]]{service}"));
    let problems: Vec<_> = found.iter().map(|f| f.problem.as_str()).collect();
    assert!(
        problems.iter().any(|p| p.contains("web stands in line 4")),
        "{problems:?}"
    );
    assert!(
        problems
            .iter()
            .any(|p| p.contains("taken by the service in line 3")),
        "{problems:?}"
    );
}

#[test]
fn what_stands_often_names_its_first_place_each_time() {
    let again = "[[services.backends]]\naddress = \"10.0.0.11\"\n";
    let found = findings(&format!("{MINIMAL}{again}{again}"));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found.iter().all(|f| f.problem.contains("line 8")),
        "{found:#?}"
    );
    let service = MINIMAL.split_once("name = \"web\"").unwrap().1;
    let again = |name| format!("[[services]]\nname = \"{name}\"{service}");
    let found = findings(&format!("{MINIMAL}{}{}", again("b"), again("c")));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found.iter().all(|f| f.problem.contains("line 3")),
        "{found:#?}"
    );
}

#[test]
fn a_wrong_health_port_hides_no_other_error() {
    let health = "port = 80\n[services.health]\nport = 0\ninterval = \"1\"\nrise = 0\npath = 1";
    let found = findings(&MINIMAL.replace("port = 80", health));
    assert_eq!(
        fields(&found),
        ["type", "port", "interval", "rise", "path"].map(|key| format!("services[0].health.{key}")),
        "{found:#?}"
    );
}

#[test]
fn a_wrong_backend_hides_nothing_about_the_others() {
    let backends = "name = \"B!\"\nweight = 0\n[[services.backends]]\n\
                    address = \"198.51.100.10\"\nweight = 0\ncapacity = 5\n";
    let found = findings(&format!("{MINIMAL}{backends}").replace("port = 80", "port = 0"));
    let problems = found.iter().map(|f| f.problem.as_str()).collect::<String>();
    for part in ["B!", "every weight is 0", "1 of 2", "is the VIP"] {
        assert!(problems.contains(part), "{part}: {found:#?}");
    }
}

#[test]
fn paths_and_hosts_that_can_be_asked_for_are_taken() {
    let with = |line: &str| {
        MINIMAL.replace(
            "port = 80",
            &format!("port = 80\n[services.health]\ntype = \"http\"\n{line}"),
        )
    };
    for line in [
        "path = \"/\"",
        "path = \"/a%20b?c=d&e\"",
        "host = \"www.example.org:8080\"",
        "host = \"[2001:db8::1]:80\"",
        "host = \"10.0.0.1\"",
        "status = [200, \"204-206\"]",
    ] {
        parse("f.toml", &with(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn the_schema_says_what_is_required_and_what_holds_without() {
    let schema = schema();
    assert_eq!(
        schema["required"],
        serde_json::json!(["data_plane", "services"])
    );
    let service = &schema["$defs"]["Service"];
    assert_eq!(
        service["required"],
        serde_json::json!(["name", "vip", "port", "backends"])
    );
    assert_eq!(service["properties"]["protocol"]["default"], "tcp");
    assert_eq!(
        service["properties"]["on_empty"]["enum"],
        serde_json::json!(["drop", "pass"])
    );
    assert!(!schema.to_string().contains("\"null\""));
}

#[test]
fn capacities_are_declared_for_all_or_none() {
    let more = "capacity = 5\n[[services.backends]]\naddress = \"10.0.0.12\"\n";
    let found = findings(&format!("{MINIMAL}{more}"));
    assert!(found[0].problem.contains("1 of 2"), "{found:#?}");
}

#[test]
fn all_mistakes_are_found_at_once_and_shown_with_their_lines() {
    let text = MINIMAL
        .replace("[\"eth0\"]", "[]")
        .replace("port = 80", "port = 0\ncolour = \"red\"")
        .replace("10.0.0.11", "nowhere");
    let Err(found) = parse("f.toml", &text) else {
        panic!("taken for valid")
    };
    let fields: Vec<_> = found.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "data_plane.interfaces",
            "services[0].port",
            "services[0].colour",
            "services[0].backends[0].address"
        ]
    );
    let shown = found.to_string();
    for part in [
        "f.toml:2:14",
        "port = 0",
        "^",
        "give 1 to 65535",
        "4 errors in f.toml",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
}

fn fields(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|finding| finding.field.as_str()).collect()
}

#[test]
fn a_value_of_the_wrong_shape_hides_no_other_error() {
    let text = MINIMAL
        .replace("[\"eth0\"]", "[]")
        .replace("[[services]]", "[services]");
    let found = findings(&format!("admin = 3\n{text}"));
    assert_eq!(
        fields(&found),
        ["admin", "data_plane.interfaces", "services"],
        "{found:#?}"
    );
    let text = MINIMAL
        .replace("port = 80", "port = 0\nbackends = 3")
        .replace("[[services.backends]]\naddress = \"10.0.0.11\"\n", "");
    let found = findings(&format!("services_ = 1\n{text}[[services]]\nname = 1\n"));
    assert_eq!(
        fields(&found),
        [
            "services_",
            "services[0].port",
            "services[0].backends",
            "services[1].vip",
            "services[1].port",
            "services[1].backends",
            "services[1].name"
        ],
        "{found:#?}"
    );
}

#[test]
fn a_finding_is_shown_with_its_own_line_only() {
    let text = MINIMAL.replace("name = \"web\"", "name = \"ä\" # é\r\nvip_ = '''\na\n'''");
    let Err(found) = parse("f.toml", &text) else {
        panic!("taken for valid")
    };
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    let lines: Vec<_> = found.iter().map(|f| (f.line, f.column)).collect();
    assert_eq!(lines, [(4, 8), (5, 1)], "{shown:#?}");
    for (shown, parts) in shown.iter().zip([
        ["f.toml:4:8", "4 | name = \"ä\" # é", "       ^^^"],
        ["f.toml:5:1", "5 | vip_ = '''", "  | ^^^^ unknown key"],
    ]) {
        for part in parts {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
        assert!(!shown.contains("[[services]]"), "{shown}");
    }
}

#[test]
fn many_findings_in_a_large_file_are_shown_at_once() {
    let backends = "[[services.backends]]\naddress = \"nowhere\"\n".repeat(5_000);
    let Err(found) = parse("f.toml", &format!("{MINIMAL}{backends}")) else {
        panic!("taken for valid")
    };
    let shown = found.to_string();
    assert!(shown.contains("f.toml:10008:11"), "no last finding");
}

#[test]
fn a_misspelt_key_is_set_right() {
    let found = findings(&MINIMAL.replace("address =", "adress ="));
    assert!(
        found.iter().any(|f| f.remedy == "did you mean 'address'?"),
        "{found:#?}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = parse("f.toml", &text).map_err(|findings| findings.to_string());
    }

    #[test]
    fn no_change_of_the_example_makes_it_panic(
        at in 0..EXAMPLE.len(),
        length in 0..40usize,
        with in "[ -~\n]{0,8}",
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Err(findings) = parse("f.toml", &text) {
            proptest::prop_assert!(findings.iter().next().is_some());
            proptest::prop_assert!(findings.to_string().contains("f.toml:"));
        }
    }
}
