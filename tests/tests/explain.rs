//! `evenkeel explain` says where packets really go, and leaves no trace of having asked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "figures for the reader of a run")]

mod frames;
mod fuzz;
mod homes;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::Arc,
    time::Duration,
};

use aya::{
    TestRunOptions,
    maps::{Array, ArrayOfMaps, Map, MapData, MapType},
    programs::{TestRun as _, Xdp},
};
use aya_obj::programs::XdpAttachType;
use evenkeel_tests::{
    daemon::Daemon,
    topology::{Service, VIP4, VIP6},
    wait,
};
use fuzz::{corpus::Corpus, packets::Packets, tables::Drawn};
use homes::{DROP, Homes, INGRESS, PASS, REDIRECT, TX, network};
use lb_common::{
    layout::{SMALL_RING_SLOTS, Scratch},
    verdict::{Reason, Verdict},
};
use lb_userspace::{
    admin::proto::explain::{Explanation, Explanations, Flag, Packet, Protocol},
    balance::image::Image,
    dataplane::explain::Explainer,
    explain::{differences, frame},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use ways::{Bed, Way};

/// How many packets of each kind are explained in each mode.
const TUPLES: usize = 10_000;
/// How many connections are really made in each mode, before a change and after it.
const REAL: u16 = 60;

/// The action of a program that came to a verdict.
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Transmit => TX,
        Verdict::Redirect(_) => REDIRECT,
        Verdict::Pass(_) => PASS,
        Verdict::Drop(_) => DROP,
    }
}

/// Everything that the pinned maps hold but for the tables, as bytes.
fn everything(pins: &Path) -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let of = |name| {
        let data = MapData::from_pin(lb_userspace::dataplane::pin(pins, name)).unwrap();
        (name, dump(data))
    };
    [
        "ENDPOINTS",
        "EVENTS",
        "EXITS",
        "TRACKING",
        "SYNS",
        "SCRATCH",
        "FRESH",
        "ESTABLISHED",
        "FRAGMENTS",
        "SOURCES",
        "LIMITS",
    ]
    .map(of)
    .into()
}

/// The elements of a map, in the order of their keys.
fn dump(data: MapData) -> Vec<Vec<u8>> {
    fn per_cpu<const N: usize>(data: MapData) -> Vec<Vec<u8>> {
        let map: aya::maps::PerCpuArray<_, [u8; N]> = Map::PerCpuArray(data).try_into().unwrap();
        let values = (0..map.len()).map(|n| map.get(&n, 0).unwrap());
        values
            .map(|cpus| cpus.iter().flatten().copied().collect())
            .collect()
    }
    fn hash<const K: usize, const V: usize>(map: Map) -> Vec<Vec<u8>> {
        let map: aya::maps::HashMap<_, [u8; K], [u8; V]> = map.try_into().unwrap();
        let all: BTreeSet<Vec<u8>> = map
            .iter()
            .map(|element| {
                let (key, value) = element.unwrap();
                [&key[..], &value[..]].concat()
            })
            .collect();
        all.into_iter().collect()
    }
    let info = data.info().unwrap();
    let (kind, key, value) = (info.map_type().unwrap(), info.key_size(), info.value_size());
    match (kind, key, value) {
        (MapType::PerCpuArray, _, 16) => per_cpu::<16>(data),
        (MapType::PerCpuArray, _, 24) => per_cpu::<24>(data),
        (MapType::PerCpuArray, _, 32) => per_cpu::<32>(data),
        (MapType::PerCpuArray, _, 256) => per_cpu::<256>(data),
        (MapType::PerCpuArray, _, 16_384) => per_cpu::<16_384>(data),
        (MapType::LruHash, 40, 32) => hash::<40, 32>(Map::LruHashMap(data)),
        (MapType::Hash, 40, 32) => hash::<40, 32>(Map::HashMap(data)),
        (MapType::LruHash, 20, 8) => hash::<20, 8>(Map::LruHashMap(data)),
        (MapType::LpmTrie, 28, 1) => {
            let map: aya::maps::LpmTrie<_, [u8; 24], u8> = Map::LpmTrie(data).try_into().unwrap();
            let keys: BTreeSet<Vec<u8>> =
                map.keys().map(|key| key.unwrap().data().to_vec()).collect();
            keys.into_iter().collect()
        }
        other => panic!("a map of another shape: {other:?}"),
    }
}

/// An image with the lists of sources that were put into the kernel by hand.
fn with_lists(drawn: &Drawn) -> Image {
    let mut image = drawn.builder.image.clone();
    let mut lists: BTreeMap<u32, BTreeMap<_, u8>> = BTreeMap::new();
    for (key, allowed) in &drawn.sources {
        lists.entry(key.list).or_default().insert(*key, *allowed);
    }
    image.lists = lists
        .into_iter()
        .map(|(number, list)| (number, Arc::new(list)))
        .collect();
    image
}

/// What the two homes that only look say of a frame; they agree, or the test fails.
fn told(explainer: &mut Explainer, image: &Image, frame: &[u8]) -> (u32, Vec<u8>, Option<Reason>) {
    let kernel = explainer.kernel(frame, INGRESS).unwrap();
    let host = explainer.host(image, frame, &kernel).unwrap();
    let found = differences(&kernel, &host);
    assert!(found.is_empty(), "{found:#?}: {frame:02x?}");
    let verdict = kernel.trail.verdict().expect("the program decided");
    (action(verdict), kernel.frame, kernel.trail.reason())
}

/// Random packets of every kind over random tables of every mode, damaged ones included: what was
/// explained is what the program that forwards does then, and explaining changes nothing.
#[test]
fn explanations_are_what_the_program_does_whatever_the_packet() {
    network::within(|| {
        const TABLES: u64 = 8;
        const BATCH: usize = 2_500;
        let corpus = Corpus::read();
        let mut homes: Option<(Homes, Explainer)> = None;
        let mut seen = BTreeMap::<String, u64>::new();
        let mut remembered = 0;
        for table in 0..TABLES {
            println!("table {table}");
            let mut random = StdRng::seed_from_u64(0xe491 ^ (table << 32));
            let drawn = Drawn::new(&mut random);
            let image = with_lists(&drawn);
            let (homes, explainer) = homes.get_or_insert_with(|| {
                let homes = Homes::with(&drawn.builder.image, 1);
                let explainer = homes.kernel.explainer().unwrap().load().unwrap();
                (homes, explainer)
            });
            homes.change(&drawn.builder.image, drawn.builder.endpoints + 1);
            for &(source, allowed) in &drawn.sources {
                homes.put_source(source, allowed);
            }
            let mut source = Packets::new(&drawn, &corpus);
            for nth in 0..BATCH {
                if nth % 64 == 0 {
                    let told = Scratch {
                        filled: homes::now(),
                        tell: u32::MAX >> 1,
                        ..homes.memory.scratch()
                    };
                    homes.memory.put_scratch(&told);
                }
                let frame = source.next(&mut random);
                let (action, bytes, reason) = told(explainer, &image, &frame);
                let (verdict, after) = homes.run(&frame);
                assert_eq!(
                    (action, &bytes),
                    (self::action(verdict), &after),
                    "explained, and done: {frame:02x?}"
                );
                if let Verdict::Pass(done) | Verdict::Drop(done) = verdict {
                    assert_eq!(reason, Some(done), "{frame:02x?}");
                }
                drawn.check(&frame, verdict, &after);
                source.note(verdict, &frame, &after);
                *seen.entry(format!("{reason:?}")).or_default() += 1;
            }
            // Flows are remembered by now, ports taken and limits used up.
            let pins = homes.pins();
            let before = everything(&pins);
            for _ in 0..BATCH {
                told(explainer, &image, &source.next(&mut random));
            }
            let after = everything(&pins);
            for (name, elements) in &before {
                assert!(*elements == after[name], "{name} is as it was");
            }
            remembered += before["FRESH"].len() + before["ESTABLISHED"].len();
            homes.forget();
            homes.forget_sources();
        }
        println!("{seen:#?}, and {remembered} flows");
        assert!(seen.len() > 12, "{seen:#?}");
        assert!(remembered > 1_000, "{remembered} flows are remembered");
    });
}

/// A client that keeps connections from known ports.
struct Ports {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Ports {
    fn start(bed: &Bed, vip: IpAddr, first: u16) -> Self {
        let script = include_str!("../clients/ports.py");
        let script = bed.topology.dir().write("ports.py", script).unwrap();
        let mut python = bed.topology.client.command("python3").unwrap();
        python.arg("-I").arg(script).arg(vip.to_string()).arg("80");
        python.args(["--first", &first.to_string(), "--count", &REAL.to_string()]);
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    /// Who answers each port.
    fn ask(&mut self) -> BTreeMap<u16, String> {
        self.stdin.write_all(b"ask\n").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let told: BTreeMap<String, String> = serde_json::from_str(&line).unwrap();
        told.into_iter()
            .map(|(port, name)| (port.parse().unwrap(), name))
            .collect()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The services of a bed: TCP of both families, and UDP.
fn config(bed: &Bed) -> String {
    let mut config = bed.head();
    for (family, vip) in [("4", VIP4), ("6", VIP6)] {
        let names = [format!("web{family}"), format!("dns{family}")];
        let web = bed.web(&names[0], vip);
        let dns = Service {
            name: &names[1],
            port: "53",
            options: web.options.clone() + "protocol = \"udp\"\n",
            health: "",
            ..web.clone()
        };
        config += &bed.topology.service(&web);
        config += &bed.topology.service(&dns);
    }
    config
}

fn packet(random: &mut StdRng) -> Packet {
    let v4: bool = random.random_range(0..3) > 0;
    let (source, vip): (IpAddr, IpAddr) = if v4 {
        let [_, b, c, d] = random.random::<[u8; 4]>();
        (Ipv4Addr::new(203, b, c, d).into(), VIP4)
    } else {
        let low: u64 = random.random();
        let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (low >> shift) as u16);
        (
            Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, a, b, c, d).into(),
            VIP6,
        )
    };
    let protocol = *[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]
        .choose(random)
        .unwrap();
    let (flags, port) = match protocol {
        Protocol::Tcp if random.random() => (vec![Flag::Syn], 80),
        Protocol::Tcp => (vec![Flag::Ack], 80),
        _ => (Vec::new(), 53),
    };
    Packet {
        protocol,
        source,
        destination: vip,
        ports: Some([random.random_range(1..=u16::MAX), port]),
        flags,
        length: *[None, None, Some(576), Some(1400)].choose(random).unwrap(),
        vlans: Vec::new(),
    }
}

/// Asks the controller about packets.
fn explain(daemon: &Daemon<'_>, bed: &Bed, packets: &[Packet]) -> Vec<Explanation> {
    let client = lb_userspace::admin::client::Client::new(bed.topology.socket());
    let request = lb_userspace::admin::proto::explain::Request {
        packets: packets.to_vec(),
        interface: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told: Explanations = runtime.block_on(client.explain(&request)).unwrap();
    assert_eq!(told.explanations.len(), packets.len());
    assert!(daemon.status().is_ok());
    told.explanations
}

/// What the program that forwards does with a packet: its action and the frame.
fn really(program: &Xdp, ingress: u32, packet: &Packet) -> (u32, Vec<u8>) {
    let bytes = frame::craft(packet).unwrap();
    let words: [u32; 6] = [0, bytes.len() as u32, 0, ingress, 0, 0];
    let mut out = vec![0; bytes.len() + 256];
    let options = TestRunOptions {
        data_in: Some(&bytes),
        data_out: Some(&mut out),
        ctx_in: Some(bytemuck::bytes_of(&words)),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// The end of a flow without its port.
fn host(end: &str) -> IpAddr {
    end.parse::<SocketAddr>()
        .map_or_else(|_| end.parse().unwrap(), |end| end.ip())
}

/// Compares what was explained with what is done.
fn compare(way: Way, told: &Explanation, (action, bytes): &(u32, Vec<u8>)) {
    let packet = &told.packet;
    let word = match *action {
        TX => "transmit",
        REDIRECT => "redirect",
        PASS => "pass",
        DROP => "drop",
        other => panic!("action {other}"),
    };
    assert_eq!(told.verdict, word, "{packet}: {told:#?}");
    assert!(told.agree, "{packet}: {:#?}", told.differences);
    let left = frame::read(bytes, 6080);
    let Some(sent) = &told.sent else {
        assert!(*action == PASS || *action == DROP, "{told:#?}");
        return;
    };
    let left = left.expect("an IP packet");
    assert_eq!(sent.mac, lb_userspace::explain::mac(left.mac), "{told:#?}");
    assert_eq!(sent.destination, left.destination, "{told:#?}");
    assert_eq!(sent.outer, left.outer, "{told:#?}");
    assert_eq!(sent.length, left.length, "{told:#?}");
    // A new flow's port is picked as the packet comes.
    if way == Way::Snat && told.flow.is_none() {
        assert_eq!(host(&sent.source), host(&left.source), "{told:#?}");
    } else {
        assert_eq!(sent.source, left.source, "{told:#?}");
    }
    let backend = told.backend.as_ref().unwrap();
    if way != Way::Dsr {
        let to = left
            .outer
            .map_or(left.destination, |outer| outer.destination);
        assert_eq!(backend.address, host(&to), "{told:#?}");
    }
}

/// Explains random packets, sees that nothing changed by that, and has the program that forwards
/// decide each. Answers how many were sent to whom.
fn explained_and_done(bed: &Bed, daemon: &Daemon<'_>, seed: u64) -> BTreeMap<String, usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let packets: Vec<Packet> = (0..TUPLES).map(|_| packet(&mut random)).collect();
    let pins = bed.topology.pins();
    let before = everything(&pins);
    let told = explain(daemon, bed, &packets);
    let after = everything(&pins);
    for (name, elements) in &before {
        // Probes to the VIP and connections that are kept go on meanwhile: what they do not touch is
        // as it was.
        let changes = matches!(
            *name,
            "ENDPOINTS" | "EVENTS" | "EXITS" | "SYNS" | "TRACKING"
        );
        if !changes {
            assert!(*elements == after[name], "{name} is as it was");
        }
    }
    let program = Xdp::from_pin(pins.join("program"), XdpAttachType::Interface)
        .unwrap_or_else(|e| panic!("the program that forwards: {e}"));
    let status = daemon.status().unwrap();
    let ingress = status["interfaces"][0]["index"].as_u64().unwrap() as u32;
    bed.topology
        .balancer
        .inside(|| {
            let mut sent = BTreeMap::new();
            for told in &told {
                compare(bed.way, told, &really(&program, ingress, &told.packet));
                let name = match (&told.backend, told.forwarded) {
                    (Some(backend), true) => backend.name.clone(),
                    _ => told.reason.clone().unwrap(),
                };
                *sent.entry(name).or_default() += 1;
            }
            sent
        })
        .unwrap()
}

/// What is explained of a connection of the client's, by its port and flag.
fn of_client(bed: &Bed, daemon: &Daemon<'_>, first: u16, flag: Flag) -> BTreeMap<u16, Explanation> {
    let packets: Vec<Packet> = (first..first + REAL)
        .map(|port| Packet {
            flags: vec![flag],
            ..format!("tcp 10.10.1.2:{port} -> {VIP4}:80")
                .parse()
                .unwrap()
        })
        .collect();
    let told = explain(daemon, bed, &packets);
    told.into_iter()
        .map(|one| (one.packet.ports.unwrap()[0], one))
        .collect()
}

fn names(told: &BTreeMap<u16, Explanation>) -> BTreeMap<u16, String> {
    told.iter()
        .map(|(port, one)| {
            let backend = one.backend.as_ref();
            let name = backend.unwrap_or_else(|| panic!("{one:#?}")).name.clone();
            (*port, name)
        })
        .collect()
}

/// In a mode: what is explained is what real connections and ten thousand random packets meet, in
/// steady slots and in slots in transition.
fn is_true(way: Way) {
    homes::stay_on(0);
    let bed = way.bed(3);
    let _tunnels = bed.tunnels();
    let _servers = bed.servers();
    let daemon = Daemon::start(bed.topology, &config(&bed)).unwrap();
    wait::until("all backends to serve", Duration::from_secs(10), || {
        let status = daemon.status()?;
        let services = status["services"].as_array().unwrap();
        let backends = services
            .iter()
            .flat_map(|s| s["backends"].as_array().unwrap());
        for backend in backends {
            anyhow::ensure!(backend["out_of_ring"].is_null(), "{backend}");
        }
        Ok(())
    })
    .unwrap();

    // Steady: new connections go where it was said, and so do their later packets.
    let promised = names(&of_client(&bed, &daemon, 20_000, Flag::Syn));
    let mut kept = Ports::start(&bed, VIP4, 20_000);
    assert_eq!(kept.ask(), promised, "{way:?}");
    let later = of_client(&bed, &daemon, 20_000, Flag::Ack);
    assert_eq!(names(&later), promised, "{way:?}");
    let steady = explained_and_done(&bed, &daemon, 1);

    // In transition: connections of before stay, new ones go elsewhere.
    let drained = daemon
        .ask(&["backend", "drain", "web4", "b1", "--reason", "test"])
        .unwrap();
    assert!(drained.status.success(), "{drained:?}");
    let later = of_client(&bed, &daemon, 20_000, Flag::Ack);
    assert_eq!(names(&later), promised, "{way:?}: established ones stay");
    assert_eq!(kept.ask(), promised, "{way:?}");
    let transition = |one: &Explanation| {
        one.slot.as_ref().is_some_and(|s| s.state == "transition") || one.flow.is_some()
    };
    assert!(later.values().any(transition), "{way:?}: {later:#?}");
    let opening = of_client(&bed, &daemon, 30_000, Flag::Syn);
    let promised = names(&opening);
    assert!(promised.values().all(|name| name != "b1"), "{promised:?}");
    let mut new = Ports::start(&bed, VIP4, 30_000);
    assert_eq!(new.ask(), promised, "{way:?}");
    let later = of_client(&bed, &daemon, 30_000, Flag::Ack);
    assert_eq!(names(&later), promised, "{way:?}");
    if way != Way::Snat {
        let moved: Vec<_> = later.values().filter(|one| one.flow.is_some()).collect();
        assert!(!moved.is_empty(), "some of them are remembered");
    }
    let moving = explained_and_done(&bed, &daemon, 2);
    println!("{way:?}: {steady:?}, then {moving:?}");
    for name in ["b1", "b2", "b3"] {
        assert!(steady[name] > 1_000, "{steady:?}");
        assert!(moving[name] > 500, "{moving:?}");
    }
}

/// Gives every slot of the first service to whoever has its first one.
fn damage(bed: &Bed) {
    let outer = MapData::from_pin(lb_userspace::dataplane::pin(
        &bed.topology.pins(),
        "SMALL_RINGS",
    ));
    let outer = Map::from_map_data(outer.unwrap()).unwrap();
    let outer: ArrayOfMaps<MapData> = outer.try_into().unwrap();
    // The service's two numbers, of which one is in use.
    for number in [0, 1] {
        let Ok(data) = outer.get(&number, 0) else {
            continue;
        };
        let map = Map::from_map_data(data).unwrap();
        let mut ring = Array::<MapData, [u32; SMALL_RING_SLOTS]>::try_from(map).unwrap();
        let slots = ring.get(&0, 0).unwrap();
        ring.set(0, [slots[0]; SMALL_RING_SLOTS], 0).unwrap();
    }
}

/// What the command prints, and its exit code.
fn say(daemon: &Daemon<'_>, words: &[&str]) -> (String, Option<i32>) {
    let output = daemon.ask(&[&["explain"], words].concat()).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

#[test]
fn the_command_says_where_and_why_and_by_its_code_whether() {
    let bed = Way::Dsr.bed(3);
    let _servers = bed.servers();
    let report = "[data_plane]\non_drift = \"report\"\n";
    let config = config(&bed).replacen("[data_plane]\n", report, 1);
    let daemon = Daemon::start(bed.topology, &config).unwrap();
    let tcp = "tcp 203.0.113.9:51000 -> 198.51.100.10:80";
    let (text, code) = say(&daemon, &[tcp]);
    println!("{text}");
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "SYN by lb0 (opens a connection)\n  GOES TO b",
        "ACK by lb0 (of a connection that is established)\n  GOES TO b",
        "tcp 198.51.100.10:80 is service web4, mode dsr",
        "is up",
        "the kernel and this host agree",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for (words, code, says) in [
        (
            &["icmp 203.0.113.9 -> 198.51.100.10"][..],
            0,
            "ANSWERED HERE",
        ),
        (&["--vlan", "7", "--fin", tcp], 0, "FIN vlan 7 by lb0"),
        (
            &["tcp 203.0.113.9:1 -> 198.51.100.10:81"],
            1,
            "198.51.100.10 is a VIP, but of",
        ),
        (
            &["tcp 203.0.113.9:1 -> 198.51.100.99:80"],
            1,
            "OWN STACK (no-service)",
        ),
        (&["tcp somewhere"], 2, "as in 'tcp "),
        (
            &["--ack", "udp 203.0.113.9:1 -> 198.51.100.10:53"],
            2,
            "no flags",
        ),
        (&["--interface", "eth9", tcp], 2, "it is to lb0"),
        (&["--vlan", "5000", tcp], 2, "no VLAN"),
    ] {
        let (text, found) = say(&daemon, words);
        assert_eq!(found, Some(code), "{words:?}: {text}");
        assert!(text.contains(says), "{words:?}: {text}");
    }
    let (text, code) = say(&daemon, &["--json", "--syn", tcp]);
    let told: Explanations = serde_json::from_str(&text).unwrap();
    assert_eq!((code, told.explanations.len()), (Some(0), 1));
    // Somebody changes the tables: it is told, aloud.
    damage(&bed);
    let many: Vec<String> = (1..=20)
        .map(|port| format!("tcp 203.0.113.9:{port} -> 198.51.100.10:80"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (text, code) = say(&daemon, &many);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("THE KERNEL AND THIS HOST CONTRADICT EACH OTHER"),
        "{text}"
    );
    assert!(text.contains("by the intended tables, "), "{text}");
}

#[test]
fn it_is_true_in_dsr() {
    is_true(Way::Dsr);
}

#[test]
fn it_is_true_in_ipip() {
    is_true(Way::Ipip);
}

#[test]
fn it_is_true_in_gue() {
    is_true(Way::Gue);
}

#[test]
fn it_is_true_in_nat() {
    is_true(Way::Nat);
}

#[test]
fn it_is_true_in_snat() {
    is_true(Way::Snat);
}
