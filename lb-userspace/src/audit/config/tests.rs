use super::*;
use crate::config;

/// A configuration of one service, with what is given added to the service and the backends.
fn audited(service: &str, health: &str, backends: &[&str]) -> Vec<Finding> {
    let backends: Vec<String> = (11..)
        .zip(backends)
        .map(|(n, more)| format!("[[services.backends]]\naddress = \"10.0.0.{n}\"\n{more}\n"))
        .collect();
    let backends = backends.concat();
    let text = format!(
        "[data_plane]\ninterfaces = [\"eth0\"]\n[[notify]]\nname = \"log\"\ntype = \"syslog\"\n\
         [[services]]\nname = \"web\"\n{service}\n\
         {health}\n{backends}"
    );
    let parsed = config::parse("test", &text).unwrap_or_else(|findings| panic!("{findings}"));
    let local: Vec<IpNet> = ["10.0.0.2/24", "192.0.2.1/32"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    judge(&parsed, &local)
}

/// What is beyond reproach, but for the way of its check.
const SERVICE: &str = "vip = \"198.51.100.10\"\nport = 80\nmode = \"nat\"\nslow_start = \"30s\"";
const HEALTH: &str = "[services.health]\ntype = \"http\"\npath = \"/\"";

fn rules(findings: &[Finding]) -> Vec<String> {
    let mut rules: Vec<String> = findings
        .iter()
        .map(|finding| format!("{} {}", finding.rule, finding.level.name()))
        .collect();
    rules.sort();
    rules.dedup();
    rules
}

/// A service with a peak.
fn busy(peak: u32) -> String {
    format!("{SERVICE}\npeak_load = {peak}")
}

#[test]
fn a_sound_service_has_no_finding() {
    assert_eq!(audited(SERVICE, HEALTH, &[""; 3]), []);
    // Weights are what capacities say.
    let sizes = [
        "weight = 10\ncapacity = 100",
        "weight = 20\ncapacity = 200",
        "weight = 10\ncapacity = 100",
    ];
    assert_eq!(audited(SERVICE, HEALTH, &sizes), []);
    // A ring of 65536 slots is large enough for 1 : 10; and two to one is not ten to one.
    let fixed = format!("{SERVICE}\nring_slots = 65536");
    assert_eq!(audited(&fixed, HEALTH, &[""; 3]), []);
    // A tcp check of what is not HTTP.
    let other = SERVICE.replace("port = 80", "port = 5432");
    assert_eq!(
        audited(&other, "[services.health]\ntype = \"tcp\"", &[""; 3]),
        []
    );
}

#[test]
fn each_rule_finds_its_fault() {
    let health = |more: &str| format!("{HEALTH}\n{more}");
    let equal: &[&str] = &["", "", ""];
    let slots = format!("{SERVICE}\nring_slots = 256");
    let fearless = format!("{SERVICE}\npanic_below = 0.0");
    let at_once = SERVICE.replace("slow_start", "# slow_start");
    let dsr = SERVICE.replace("nat", "dsr");
    let own = SERVICE.replace("198.51.100.10", "192.0.2.1");
    let inside = SERVICE.replace("198.51.100.10", "10.0.0.99");
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        // 1 : 200 in 256 slots is half as much again.
        (
            &slots,
            HEALTH,
            &[
                "weight = 200\ncapacity = 200",
                "weight = 200\ncapacity = 200",
                "weight = 1\ncapacity = 1",
            ],
            &["L5 warning", "L6 warning"],
        ),
        (
            SERVICE,
            HEALTH,
            &[
                "weight = 10\ncapacity = 10",
                "weight = 1\ncapacity = 10",
                "weight = 10\ncapacity = 10",
            ],
            &["L4 error"],
        ),
        (
            SERVICE,
            HEALTH,
            &["weight = 2", "weight = 3", "weight = 2"],
            &["L4 warning"],
        ),
        (
            SERVICE,
            HEALTH,
            &["weight = 1", "weight = 5", "weight = 1"],
            &["L4 error"],
        ),
        (
            SERVICE,
            HEALTH,
            &[
                "weight = 1\ncapacity = 1",
                "weight = 11\ncapacity = 11",
                "weight = 11\ncapacity = 11",
            ],
            &["L5 warning"],
        ),
        (&slots, HEALTH, equal, &["L6 warning"]),
        (SERVICE, HEALTH, &[""], &["L8 error"]),
        (&fearless, HEALTH, equal, &["L15 error"]),
        (&at_once, HEALTH, equal, &["L31 info"]),
        (SERVICE, HEALTH, &["", "", "weight = 0"], &["L8 warning"]),
        (&at_once, "", equal, &["L9 error"]),
        (
            SERVICE,
            "[services.health]\ntype = \"tcp\"",
            equal,
            &["L10 warning"],
        ),
        (
            SERVICE,
            &health("interval = \"4s\"\nfast_interval = \"2s\"\nfall = 3"),
            equal,
            &[],
        ),
        (SERVICE, &health("fall = 1"), equal, &["L13 warning"]),
        (SERVICE, &health("rise = 1"), equal, &["L13 warning"]),
        (&own, HEALTH, equal, &["L17 error"]),
        (&inside, HEALTH, equal, &["L17 error"]),
        (&dsr, &health("via = \"direct\""), equal, &["L25 warning"]),
        (
            &dsr,
            "[services.health]\ntype = \"icmp\"",
            equal,
            &["L25 warning"],
        ),
    ];
    for (service, health, backends, expected) in cases {
        let findings = audited(service, health, backends);
        assert_eq!(
            rules(&findings),
            *expected,
            "{service}\n{health}\n{backends:?}\n{findings:#?}"
        );
        for finding in findings {
            assert_eq!(finding.service.as_deref(), Some("web"));
            let words = [&finding.what, finding.why, &finding.remedy];
            assert!(words.iter().all(|words| !words.is_empty()), "{finding:?}");
        }
    }
}

#[test]
fn a_weight_off_its_capacity_is_named_with_its_share() {
    let off = [
        "weight = 10\ncapacity = 10",
        "weight = 1\ncapacity = 10",
        "weight = 10\ncapacity = 10",
    ];
    let findings = audited(SERVICE, HEALTH, &off);
    let small = findings
        .iter()
        .find(|f| f.backend.as_deref() == Some("10.0.0.12"))
        .unwrap();
    assert_eq!(
        small.what,
        "its weight gives it 4.8 % of the load, its capacity is 33.3 % of all"
    );
}

#[test]
fn a_check_that_takes_long_is_told() {
    for (health, expected) in [
        ("interval = \"4s\"\nfall = 3", &["L12 warning"][..]),
        ("interval = \"10s\"\nfall = 3", &["L12 error"][..]),
        (
            "interval = \"10s\"\nfast_interval = \"1s\"\nfall = 3",
            &["L12 warning"][..],
        ),
    ] {
        let findings = audited(SERVICE, &format!("{HEALTH}\n{health}"), &[""; 3]);
        assert_eq!(rules(&findings), expected, "{health}");
    }
}

#[test]
fn what_is_declared_of_the_traffic_is_compared() {
    let large = ["capacity = 20"; 3];
    let silent = |length: &str| format!("{SERVICE}\nkeepalive = \"{length}\"");
    // All but the largest backend can just take the peak; flows are remembered for an hour.
    assert_eq!(audited(&busy(40), HEALTH, &large), []);
    assert_eq!(rules(&audited(&busy(41), HEALTH, &large)), ["L14 error"]);
    assert_eq!(audited(&silent("1h"), HEALTH, &large), []);
    assert_eq!(
        rules(&audited(&silent("61m"), HEALTH, &large)),
        ["L24 warning"]
    );
}

#[test]
fn a_check_goes_by_the_way_of_traffic_unless_it_cannot() {
    let dsr = SERVICE.replace("nat", "dsr");
    assert_eq!(audited(&dsr, HEALTH, &[""; 3]), []);
    let icmp = "[services.health]\ntype = \"icmp\"";
    assert_eq!(rules(&audited(&dsr, icmp, &[""; 3])), ["L25 warning"]);
}

#[test]
fn a_drained_backend_takes_nothing_of_the_peak() {
    let capacities = [
        "capacity = 20",
        "capacity = 20\nweight = 0",
        "capacity = 20",
    ];
    let findings = audited(&busy(40), HEALTH, &capacities);
    let what: Vec<_> = findings.iter().filter(|f| f.rule == "L14").collect();
    let [what] = what[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(
        what.what,
        "the peak is 40; without the largest backend, the others can take 20"
    );
}

#[test]
fn generic_xdp_is_told() {
    let text = "[data_plane]\ninterfaces = [\"eth0\"]\nxdp_mode = \"generic\"\n[[services]]\n\
                name = \"web\"\nvip = \"198.51.100.10\"\nport = 80\n[[services.backends]]\n\
                address = \"10.0.0.11\"\n";
    let config = config::parse("test", text).unwrap();
    let findings = judge(&config, &[]);
    assert!(
        rules(&findings).contains(&"L30 warning".to_owned()),
        "{findings:?}"
    );
}

#[test]
fn a_budget_that_no_backend_fits_into_is_told() {
    let with = |budget: &str| {
        let health = format!("{HEALTH}\n[services.ejection]\n{budget}");
        rules(&audited(SERVICE, &health, &[""; 4]))
    };
    assert_eq!(with("budget = 0.2"), ["L16 warning"]);
    assert_eq!(with("budget = 0.25"), Vec::<String>::new());
    assert_eq!(
        with("budget = 0.2\nunderperformers = \"alert\""),
        Vec::<String>::new()
    );
}

#[test]
fn somebody_must_be_told() {
    let text = "[data_plane]\ninterfaces = [\"eth0\"]\n[[services]]\nname = \"web\"\n\
                vip = \"198.51.100.10\"\nport = 80\n[[services.backends]]\n\
                address = \"10.0.0.11\"\n";
    let told = "[[notify]]\nname = \"log\"\ntype = \"syslog\"\n";
    let with = |text: &str| rules(&judge(&config::parse("test", text).unwrap(), &[]));
    let rule = "L26 error".to_owned();
    assert!(with(text).contains(&rule));
    assert!(!with(&format!("{text}{told}")).contains(&rule));
}

#[test]
fn metrics_for_everybody_are_told() {
    let text = "[data_plane]\ninterfaces = [\"eth0\"]\n[[services]]\nname = \"web\"\n\
                vip = \"198.51.100.10\"\nport = 80\n[[services.backends]]\n\
                address = \"10.0.0.11\"\n";
    let found = |http: &str| {
        let text = format!("{text}[http]\n{http}\n");
        let found = rules(&judge(&config::parse("test", &text).unwrap(), &[]));
        found.contains(&"L34 warning".to_owned())
    };
    assert!(!found(""));
    assert!(!found("listen = [\"127.0.0.1:9660\", \"[::1]:9660\"]"));
    assert!(found("listen = [\"127.0.0.1:9660\", \"192.0.2.1:9660\"]"));
    assert!(!found(
        "listen = [\"192.0.2.1:9660\"]\ntoken = { file = \"/etc/evenkeel/token\" }\n\
         certificate = \"/etc/evenkeel/web.pem\"\nkey = \"/etc/evenkeel/web.key\""
    ));
}
