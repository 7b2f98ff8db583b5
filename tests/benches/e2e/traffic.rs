//! The traffic from the client, and what came of it.

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::{Result, bail, ensure};
use evenkeel_tests::{
    end_to_end::{
        Figure, Scenario,
        tool_output::{Requests, Transfer, WRK_SCRIPT},
    },
    process::Process,
    tools,
    topology::{HOST_INTERFACE, Topology, VIP4},
    wait,
};

use crate::{
    forwarder::{BULK, BULK_PORT},
    processor::busy_seconds,
};

/// How many connections make the requests.
pub(crate) const CONNECTIONS: u32 = 32;
/// The threads of wrk.
const THREADS: u32 = 2;
/// How long a contender may take until every backend answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// Caches, neighbours and the processor's clock settle within it.
const WARM_UP: u32 = 1;

type Values = Vec<(Figure, f64)>;

/// Waits until requests to the VIP have been answered by every backend: a contender that leaves
/// one out would be compared unfairly, and one that leaves out all is not there yet.
pub(crate) fn await_all_backends(bed: &Topology) -> Result<()> {
    let url = format!("http://{VIP4}/");
    let mut seen = BTreeSet::new();
    wait::until("all backends to answer for the VIP", PATIENCE, || {
        let answer = bed.client.run("curl", &["-sS", "-m", "1", &url])?;
        seen.insert(answer.trim().to_owned());
        let all = bed.backends.iter().all(|host| seen.contains(&host.name));
        ensure!(all, "so far there were answers from {seen:?}");
        Ok(())
    })
}

/// Requests whose figures nobody looks at.
pub(crate) fn warm_up(bed: &Topology) -> Result<()> {
    flood(bed, Scenario::KeepAlive, WARM_UP).map(drop)
}

/// Requests over connections that stay, or over one each.
pub(crate) fn requests(bed: &Topology, scenario: Scenario, seconds: u32) -> Result<Values> {
    let before = busy_seconds()?;
    let told = flood(bed, scenario, seconds)?;
    let busy = busy_seconds()? - before;
    let requests = told.requests as f64;
    Ok(vec![
        (Figure::Rate, requests / told.seconds),
        (Figure::CpuPerRequest, busy * 1e6 / requests),
        (Figure::P50, told.p50_us),
        (Figure::P90, told.p90_us),
        (Figure::P99, told.p99_us),
        (Figure::Errors, told.errors as f64),
    ])
}

fn flood(bed: &Topology, scenario: Scenario, seconds: u32) -> Result<Requests> {
    let script = bed.dir().write("wrk.lua", WRK_SCRIPT)?;
    let mut wrk = bed.client.command("wrk")?;
    wrk.args(["--threads", &THREADS.to_string()])
        .args(["--connections", &CONNECTIONS.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(script);
    if scenario == Scenario::Close {
        wrk.args(["--header", "Connection: close"]);
    }
    wrk.arg(format!("http://{VIP4}/"));
    Requests::parse(&tools::output(&mut wrk)?)
}

/// Moves data for so long between the client and the first backend.
pub(crate) fn transfer(bed: &Topology, scenario: Scenario, seconds: u32) -> Result<Values> {
    // One for each transfer: it refuses the next while it still puts the last one away.
    let _server = bulk_server(bed)?;
    let mut iperf = bed.client.command("iperf3")?;
    iperf
        .args(["--client", &BULK.to_string()])
        .args(["--port", &BULK_PORT.to_string()])
        .args(["--time", &seconds.to_string(), "--json"]);
    match scenario {
        Scenario::Download => _ = iperf.arg("--reverse"),
        Scenario::Upload => {}
        Scenario::UploadFrames => segmentation_offload(bed, "off")?,
        Scenario::KeepAlive | Scenario::Close => bail!("requests are not for iperf3"),
    }
    let before = busy_seconds()?;
    let told = run_iperf(&mut iperf);
    let busy = busy_seconds()? - before;
    if scenario == Scenario::UploadFrames {
        segmentation_offload(bed, "on")?;
    }
    let Transfer { seconds, bytes } = told?;
    Ok(vec![
        (Figure::Throughput, bytes * 8.0 / seconds / 1e9),
        (Figure::CpuPerGigabyte, busy * 1e3 / (bytes / 1e9)),
    ])
}

/// Starts iperf3 on the first backend, which the VIP for bulk data leads to, and waits until it
/// listens.
fn bulk_server(bed: &Topology) -> Result<Process> {
    let host = &bed.backends[0];
    let mut iperf = host.namespace.command("iperf3")?;
    iperf.args(["--server", "--port", &BULK_PORT.to_string()]);
    let log = bed.dir().path().join("iperf3.log");
    let mut server = Process::start_logged("iperf3", &mut iperf, &log)?;
    let filter = format!("sport = :{BULK_PORT}");
    // A connection as a probe would be taken for the one test that it serves at a time.
    wait::until("iperf3 to listen", PATIENCE, || {
        server.check_running()?;
        let sockets = host.namespace.run("ss", &["-Hltn", &filter])?;
        ensure!(!sockets.is_empty(), "it does not listen yet");
        Ok(())
    })?;
    Ok(server)
}

/// Lets the client's device cut segments, or not.
///
/// Between namespaces that device cuts nothing either: chunks of 64 KiB go all the way in one
/// piece, but for a balancer with XDP, whose line takes frames only. No wire does that.
fn segmentation_offload(bed: &Topology, state: &str) -> Result<()> {
    let change = ["-K", HOST_INTERFACE, "tso", state, "gso", state];
    bed.client.run("ethtool", &change).map(drop)
}

/// Runs iperf3, which tells its complaint on its standard output, as JSON.
fn run_iperf(iperf: &mut Command) -> Result<Transfer> {
    let output = iperf.output()?;
    Transfer::parse(&String::from_utf8_lossy(&output.stdout))
}
