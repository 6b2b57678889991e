//! Who sends too much is held to the limit, loses packets or slows down; the others notice nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::daemon::{Cli, Config, Service};
use lb_tests::load::{Asker, CountedStream, Flood, KeepAlive};
use lb_tests::net::{BACKENDS, Namespace, Node, VIP4};
use lb_tests::process;
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::traffic::{self, FULL_WINDOW, Sources};
use lb_userspace::model::{Action, Prefix, Protocol};
use lb_userspace::view::{LimitView, LimitedView, Suggestion};

use crate::cases::{Case, FAMILIES, cases, echo, ensure_answered, web};

const RATE: u64 = 400;
const BURST: u32 = 50;
const FLOOD: Flood =
    Flood { target: SocketAddr::new(FAMILIES[0].1, ECHO_PORT), rate: 8000, duration: Duration::from_secs(2) };

/// Spoofed sources a second that are asked for: the aim is a million. And the least, which a machine with other work reaches too.
const SPOOFED: u64 = 1_300_000;
const LEAST_SPOOFED: u64 = 500_000;

/// A test that is done over both families.
type FamilyTest = fn(Tools, SocketAddr) -> Result<()>;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases!["limits":
        limits_change_while_packets_flow,
        a_limit_is_suggested_from_what_clients_send,
        a_storm_of_retries_costs_the_connected_nothing,
        an_innocent_source_among_spoofed_ones_loses_nothing,
    ];
    let tests: [(&str, FamilyTest); 3] = [
        ("who_is_limited_is_named", who_is_limited_is_named),
        ("only_the_flood_is_limited", only_the_flood_is_limited),
        ("marks_slow_a_connection_down_without_loss", marks_slow_a_connection_down_without_loss),
    ];
    for (name, test) in tests {
        for (family, vip) in FAMILIES {
            let target = SocketAddr::new(vip, ECHO_PORT);
            cases.push(Case::new(format!("limits::{name}_{family}"), move |tools| test(tools, target)));
        }
    }
    cases
}

fn only_the_flood_is_limited(tools: Tools, target: SocketAddr) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(target.ip()).limited(RATE, BURST)]))?;
    let flood = Flood { target, ..FLOOD }.start(&site.client(2));
    // Within its own limit: 100 a second at most.
    let innocent = Asker::paced(&site.client(1), target, 150, Duration::from_millis(10))?;
    let flood = flood.finish()?;
    ensure_answered(&innocent)?;

    let allowed = RATE * flood.took.as_millis() as u64 / 1000 + u64::from(BURST);
    let service = site.cli()?.service("echo")?;
    let admitted = service.packets - service.limited - innocent.total() as u64;
    ensure!(flood.sent > 2 * allowed, "only {} datagrams were sent", flood.sent);
    ensure!(admitted <= allowed + allowed / 10, "{admitted} admitted of {allowed} allowed: {service:?}");
    ensure!(admitted >= allowed / 2, "only {admitted} admitted of {allowed} allowed: {service:?}");
    ensure!(flood.answered <= admitted, "{} answered, {admitted} admitted", flood.answered);
    Ok(())
}

fn show(cli: &Cli, service: &str, name: &str) -> Result<LimitView> {
    cli.ask(&["limit", "show", service, name])
}

fn who_is_limited_is_named(tools: Tools, target: SocketAddr) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(target.ip()).limited(RATE, BURST)]))?;
    let cli = site.cli()?;
    let top =
        |arguments: &[&str]| -> Result<LimitedView> { cli.ask(&[&["limit", "top"], arguments].concat()) };
    let quiet = cli.succeed(&["limit", "top"])?;
    ensure!(quiet.starts_with("Nothing was over a limit"), "{quiet:?}");
    let flood = Flood { target, ..FLOOD }.start(&site.client(2));
    let innocent = Asker::paced(&site.client(1), target, 150, Duration::from_millis(10))?;
    let flood = flood.finish()?;
    ensure_answered(&innocent)?;

    let source = match Node::Client(2).address_like(target.ip()) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Prefix::of(address.into(), 64).to_string(),
    };
    let view = top(&["echo"])?;
    let [one] = &view.sources[..] else { bail!("one source is over the limit: {view:?}") };
    ensure!(one.source.as_ref() == Some(&source) && one.service.as_deref() == Some("echo"), "{one:?}");
    ensure!(one.limiter == "source-packets" && one.action == Action::Drop, "{one:?}");
    // Packets, as the limiter itself has counted them.
    let over = f64::from(u32::try_from(show(cli, "echo", "source-packets")?.over)?);
    let (told, uncertain) = (one.packets_per_second * view.seconds, one.uncertainty * view.seconds);
    ensure!((told - over).abs() <= 2.5 * uncertain + 1.0, "{over} were over, {flood:?}: {view:?}");
    ensure!(uncertain < over / 2.0 && view.samples_lost == 0, "{view:?}");
    ensure!(
        cli.succeed(&["limit", "top", "--count", "5"])?.contains(&source),
        "the table does not name {source}"
    );
    // Metrics tell how much was told, and of nobody.
    let page = site.metrics()?;
    let total = format!("lb_limiter_samples_total{{result=\"told\"}} {}", view.samples);
    ensure!(page.contains(&total) && !page.contains(&source), "{page}");

    let unknown = cli.run(&["limit", "top", "ehco"])?;
    ensure!(unknown.code == Some(5) && unknown.stderr.contains("did you mean echo?"), "{unknown:?}");
    ensure!(cli.run(&["limit", "top", "--count", "0"])?.code == Some(2), "no sources can be asked for");
    // Another limiter of the same name has told of nobody.
    cli.succeed(&["limit", "remove", "echo", "source-packets"])?;
    cli.succeed(&[
        "limit",
        "set",
        "echo",
        "source-packets",
        "scope=source",
        "packets=1/s",
        "burst=9",
        "action=drop",
    ])?;
    ensure!(top(&[])?.sources.is_empty(), "what another limiter told");
    Ok(())
}

fn limits_change_while_packets_flow(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(VIP4).limited(RATE, BURST)]))?;
    let cli = site.cli()?;
    let flood = |seconds| Flood { duration: Duration::from_secs(seconds), ..FLOOD }.start(&site.client(2));
    let first = flood(1).finish()?;
    let slow = show(cli, "echo", "source-packets")?;
    ensure!(slow.words == "400 packets/s per source, burst 50" && slow.clock == "coarse", "{slow:?}");
    ensure!(slow.over > 0 && slow.admitted + slow.over == first.sent, "{first:?}, {slow:?}");
    // Another rate: buckets and counters go on.
    cli.succeed(&["limit", "set", "echo", "source-packets", "packets=2k/s"])?;
    let second = flood(1).finish()?;
    let fast = show(cli, "echo", "source-packets")?;
    ensure!(fast.admitted + fast.over == first.sent + second.sent, "{second:?}, {fast:?}");
    let admitted = fast.admitted - slow.admitted;
    ensure!((1500..=2400).contains(&admitted), "{admitted} admitted at 2000 a second: {fast:?}");
    // A second one, which only counts, does not change what the first one does.
    cli.succeed(&[
        "limit",
        "set",
        "echo",
        "all",
        "scope=service",
        "bits=1Mbit/s",
        "burst=1Mbit",
        "action=shadow",
    ])?;
    ensure!(cli.ask::<Vec<LimitView>>(&["limit", "list", "echo"])?.len() == 2, "two limiters");
    let refused = cli.run(&["limit", "set", "echo", "all", "burst=1kbit"])?;
    ensure!(refused.code == Some(4), "{refused:?}");
    cli.succeed(&["limit", "remove", "echo", "all"])?;
    cli.succeed(&["limit", "remove", "echo", "source-packets"])?;
    let missing = cli.run(&["limit", "show", "echo", "all"])?;
    ensure!(missing.code == Some(5), "{missing:?}");
    let before = cli.service("echo")?;
    let third = flood(1).finish()?;
    let after = cli.service("echo")?;
    ensure!(after.packets - before.packets == third.sent, "{third:?}, {after:?}");
    ensure!(after.limited == before.limited && after.limit.is_none(), "{after:?}");
    Ok(())
}

/// One client asks a hundred times a second at most, the other sends a flood: two sources in all.
fn a_limit_is_suggested_from_what_clients_send(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(VIP4)]))?;
    let cli = site.cli()?;
    let suggest = |quantile: &str| -> Result<Suggestion> {
        let mut all: Vec<Suggestion> = cli.ask(&["limit", "suggest", "echo", "--quantile", quantile])?;
        all.pop().filter(|_| all.is_empty()).context("one limiter measures")
    };
    let refused = |words: &[&str], code: i32, hint: &str| -> Result<()> {
        let ran = cli.run(&[&["limit", "suggest"], words].concat())?;
        ensure!(ran.code == Some(code) && ran.stderr.contains(hint), "{words:?}: {ran:?}");
        Ok(())
    };
    refused(&["wbe"], 5, "there are: echo")?;
    refused(&["echo"], 5, "lb limit set echo probe")?;
    refused(&["echo", "--quantile", "101"], 2, "99.9")?;
    let probe =
        ["limit", "set", "echo", "probe", "scope=source", "packets=1k/s", "burst=2000", "action=shadow"];
    cli.succeed(&probe)?;
    refused(&["echo"], 5, "has not seen a source yet")?;
    let flood = Flood { rate: 2_000, ..FLOOD }.start(&site.client(2));
    let innocent =
        Asker::paced(&site.client(1), SocketAddr::from((VIP4, ECHO_PORT)), 200, Duration::from_millis(10))?;
    let flood = flood.finish()?;
    ensure_answered(&innocent)?;
    let (half, all) = (suggest("50")?, suggest("100")?);
    ensure!(half.sources == 2 && half.hits == 1 && half.contended == 0, "{half:?}");
    ensure!(all.sources == 2 && all.hits == 0, "{all:?}");
    let innocent = half.busiest[0].rate;
    ensure!((50..=130).contains(&innocent), "{half:?}");
    let busiest = all.busiest.last().map_or(0, |one| one.rate);
    ensure!(busiest > 500 && busiest <= flood.sent * 5 / 4, "{flood:?}: {all:?}");
    // What is proposed is what the command makes, and it measures nothing.
    let words: Vec<&str> = half.command.split_whitespace().skip(1).collect();
    cli.succeed(&words)?;
    let made = show(cli, "echo", "probe")?;
    ensure!(made.words == half.words && made.settings == half.settings, "{made:?}, {half:?}");
    refused(&["echo", "--limiter", "probe"], 4, "action = \"shadow\"")
}

/// Connections within the burst, then SYNs from the same address as fast as they go: each of them is forgotten after a
/// millisecond and tried again, as a program does that knows no patience.
fn a_storm_of_retries_costs_the_connected_nothing(tools: Tools) -> Result<()> {
    let limit = r#"limit = [{ name = "syn", scope = "source", new_connections = "5/s", burst = 20, action = "drop" }]"#;
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4).with(limit)]))?;
    let target = SocketAddr::from((VIP4, HTTP_PORT));
    let client = site.client(1);
    let mut connected = (0..10).map(|_| KeepAlive::open(&client, target)).collect::<Result<Vec<_>>>()?;
    let until = Instant::now() + Duration::from_secs(3);
    let storm = client.spawn(move || {
        let mut attempts = 0_u64;
        while Instant::now() < until {
            drop(TcpStream::connect_timeout(&target, Duration::from_millis(1)));
            attempts += 1;
        }
        attempts
    });
    let mut answered = 0_u64;
    while Instant::now() < until {
        for connection in &mut connected {
            connection.ask().with_context(|| format!("after {answered} answers"))?;
            answered += 1;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let attempts = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))??;
    let (syn, service) = (show(site.cli()?, "web", "syn")?, site.cli()?.service("web")?);
    ensure!(syn.over > 100, "{attempts} attempts are no storm: {syn:?}");
    ensure!(syn.admitted <= 20 + 5 * 10, "{syn:?}");
    // Nothing was dropped but SYNs: no packet of the connected was even asked.
    ensure!(service.limited == syn.over && syn.contended == 0, "{service:?}, {syn:?}");
    ensure!(answered > 100, "only {answered} answers");
    Ok(())
}

/// Both meet the same limiter, one of all services.
fn an_innocent_source_among_spoofed_ones_loses_nothing(tools: Tools) -> Result<()> {
    let flooded = SocketAddr::from((VIP4, traffic::PORT));
    let services = vec![echo(VIP4), Service::new("flooded", flooded, Protocol::Udp)];
    let site = Site::with_daemon(tools, &Config::new(services))?;
    let cli = site.cli()?;
    cli.succeed(&["limit", "set", "*", "each", "scope=source", "packets=1k/s", "burst=200", "action=drop"])?;
    // So many that each comes once in four seconds.
    let sources = Sources { first: Ipv4Addr::new(11, 0, 0, 0), bits: 22 };
    let flood = CountedStream { sources, vip: VIP4, rate: SPOOFED, window: FULL_WINDOW }
        .start(&site.lab, Node::Client(2))?;
    let target = SocketAddr::from((VIP4, ECHO_PORT));
    let innocent = Asker::paced(&site.client(1), target, 300, Duration::from_millis(10))?;
    let flood = flood.finish()?;
    ensure_answered(&innocent)?;
    let each = show(cli, "*", "each")?;
    let (echo, flooded) = (cli.service("echo")?, cli.service("flooded")?);
    ensure!(flood.rate() > LEAST_SPOOFED, "{flood:?} are too few");
    ensure!(flood.received == flood.sent && flooded.packets == flood.sent, "{flood:?}, {flooded:?}");
    ensure!(each.over == 0 && each.admitted + each.contended >= flood.sent, "{each:?}, {flooded:?}");
    ensure!(echo.limited == 0 && echo.packets == innocent.total() as u64, "{echo:?}");
    Ok(())
}

/// Many full segments.
const BULK: usize = 10_000_000;

fn marks_slow_a_connection_down_without_loss(tools: Tools, target: SocketAddr) -> Result<()> {
    let limit = r#"limit = [{ name = "slow", scope = "source", bits = "50Mbit/s", burst = "1Mbit", action = "mark" }]"#;
    let service = Service::new("bulk", target, Protocol::Tcp).with(limit);
    let site = Site::with_daemon(tools, &Config::new(vec![service]))?;
    let nodes = [Node::Client(1)].into_iter().chain(BACKENDS);
    for node in nodes {
        // Reno does what RFC 3168 says; others, such as BBR, do not look at marks.
        let settings = || {
            fs::write("/proc/sys/net/ipv4/tcp_ecn", "1")?;
            fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno")
        };
        site.lab.namespace(node).run(settings)?.context("cannot turn ECN on")?;
    }
    let client = site.client(1);
    let stream = client.run(|| TcpStream::connect(target))??;
    upload(&stream)?;
    let connection = connection(&client)?;
    stream.shutdown(Shutdown::Both)?;
    let slow = show(site.cli()?, "bulk", "slow")?;
    ensure!(slow.over > 100, "{slow:?}");
    let number = |key| connection.get(key).and_then(|value: &String| value.parse::<u64>().ok()).unwrap_or(0);
    // The sender was told of marks, and has a threshold because it once made its window smaller.
    ensure!(number("delivered_ce") > 0 && connection.contains_key("ssthresh"), "{connection:?}");
    ensure!(number("cwnd") < 100, "the window is {} segments: {connection:?}", number("cwnd"));
    // What was sent twice, by a probe that lost patience, also arrived twice: nothing was lost.
    let again = connection.get("retrans").and_then(|value| value.rsplit('/').next()?.parse().ok());
    ensure!(again.unwrap_or(0) <= number("dsack_dups"), "{connection:?}");
    ensure!(!connection.contains_key("lost"), "{connection:?}");
    ensure!(site.cli()?.service("bulk")?.limited == 0, "something was dropped");
    Ok(())
}

/// Sends much, reads it all back, and leaves the connection open.
fn upload(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut writer = stream.try_clone()?;
    let sender = thread::spawn(move || writer.write_all(&vec![0x5a; BULK]));
    let (mut reader, mut buffer, mut read) = (stream, vec![0; 1 << 16], 0);
    while read < BULK {
        let length = reader.read(&mut buffer)?;
        ensure!(length > 0, "the server closed after {read} bytes");
        read += length;
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(())
}

/// What the kernel of a namespace knows of its TCP connection: `ss` writes `key:value`.
fn connection(namespace: &Namespace) -> Result<BTreeMap<String, String>> {
    let mut command = namespace.command("ss");
    command.args(["-tinH", "state", "established"]);
    let text = process::succeed(command, Duration::from_secs(10))?;
    let pairs = text.split_whitespace().filter_map(|word| word.split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}
