//! What a service can be asked for besides spreading flows.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::daemon::{Config, Service};
use lb_tests::load::{self, Asker, ping};
use lb_tests::net::{Node, VIP4, VIP6};
use lb_tests::servers::{ECHO_PORT, HTTP_PORT};
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_tests::wait;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recv, socket};

use crate::cases::{Case, FAMILIES, cases, echo, ensure_answered, web};
use crate::ways::{Way, ways};

/// Enough that chance does not send them all to one of three backends, nor to one of two.
const MANY: u8 = 40;
/// What the kernel puts off is done much sooner.
const LISTENS: Duration = Duration::from_secs(5);
/// A time-out of 1 s, two ticks of 1.1 s to be sure, and a sweep.
const AGED: Duration = Duration::from_secs(20);
/// How long a packet takes at most.
const ARRIVES: Duration = Duration::from_secs(2);
/// The two backends of services that move from one to the other.
const TWO: [Node; 2] = [Node::Backend(1), Node::Backend(2)];

pub(crate) fn cases() -> Vec<Case> {
    cases!["options":
        a_source_keeps_to_one_backend,
        quic_initials_go_to_the_new_backend,
        a_silent_udp_flow_moves_in_time,
        ipip_comes_from_a_prefix,
        gue_comes_from_a_prefix,
        gue_comes_from_a_fixed_address,
        vips_answer_echo_requests,
    ]
}

/// All flows of an address meet at one backend, while the addresses spread.
fn a_source_keeps_to_one_backend(tools: Tools) -> Result<()> {
    let service = |(family, vip): (&str, IpAddr)| {
        let service = Service { name: format!("echo-{family}"), ..echo(vip) };
        service.with("affinity = \"source\"")
    };
    let web = web(VIP4).with("affinity = \"source\"");
    let services = FAMILIES.into_iter().map(service).chain([web]).collect();
    let site = Site::with_daemon(tools, &Config::new(services))?;
    let client = site.client(1);
    for (_, vip) in FAMILIES {
        let mut met = BTreeSet::new();
        for host in 100..100 + MANY {
            let source = extra(&site, vip, host)?;
            let mut names = BTreeSet::new();
            for _ in 0..5 {
                let asker = Asker::open_from(&client, source, SocketAddr::new(vip, ECHO_PORT))?;
                names.insert(asker.ask("who?").with_context(|| format!("{source} asks {vip}"))?);
            }
            ensure!(names.len() == 1, "{source} was answered by {names:?}");
            met.append(&mut names);
        }
        ensure!(met.len() == 3, "{MANY} sources met only {met:?}");
    }
    let report = load::requests(&client, (VIP4, HTTP_PORT).into(), 30)?;
    ensure_answered(&report)?;
    ensure!(report.by_backend().len() == 1, "connections of one source met {:?}", report.by_backend());
    Ok(())
}

/// Gives client 1 a further address.
fn extra(site: &Site, like: IpAddr, host: u8) -> Result<IpAddr> {
    let (address, command) = if like.is_ipv4() {
        let [a, b, c, _] = Node::Client(1).ipv4().octets();
        let address = Ipv4Addr::new(a, b, c, host);
        (IpAddr::from(address), format!("address add {address}/24 dev eth0"))
    } else {
        let mut segments = Node::Client(1).ipv6().segments();
        segments[7] = host.into();
        let address = Ipv6Addr::from(segments);
        (address.into(), format!("address add {address}/64 dev eth0 nodad"))
    };
    site.lab.ip(Node::Client(1), &[command])?;
    if let IpAddr::V6(address) = address {
        wait::until(LISTENS, &format!("neighbours find {address}"), || is_found(site, address))?;
    }
    Ok(address)
}

/// The kernel listens to those who ask for an address's MAC (RFC 4861, section 2.3: solicited-node) a moment after the address
/// is there, and who has asked in vain asks again in a second: longer than a question waits for its answer.
fn is_found(site: &Site, address: Ipv6Addr) -> Result<()> {
    let groups = site.client(1).run(|| fs::read_to_string("/proc/thread-self/net/igmp6"))??;
    let [.., a, b, c] = address.octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    ensure!(groups.contains(&group), "client 1 is not in {group}: {groups}");
    Ok(())
}

/// A long header of version 1, kind Initial (RFC 9000, section 17.2.2), and a short header.
const INITIAL: [u8; 12] = [0xc3, 0, 0, 0, 1, 4, 1, 2, 3, 4, 0, 0];
const SHORT: [u8; 8] = [0x43, 1, 2, 3, 4, 5, 6, 7];

/// A drained backend gets no new connections, and keeps the others: those that no Initial tells of.
fn quic_initials_go_to_the_new_backend(tools: Tools) -> Result<()> {
    let service = echo(VIP4).only(&TWO).with("quic = true");
    let site = Site::with_daemon(tools, &Config::new(vec![service.clone()]))?;
    let [old, new] = TWO.map(|node| node.to_string());
    site.cli()?.succeed(&["backend", "drain", "echo", &service.endpoint(TWO[0])])?;
    let client = site.client(1);
    // All sockets stay open: an Initial from the port of an earlier flow might be that flow's, sent again.
    let (mut unknown, mut open) = (BTreeSet::new(), Vec::new());
    for _ in 0..MANY {
        let [asker, other] = [Asker::open(&client, service.vip)?, Asker::open(&client, service.vip)?];
        for packet in [&INITIAL[..], &SHORT[..], &SHORT[..]] {
            let name = asker.ask(packet)?;
            ensure!(name == new, "{name} answered what an Initial began, instead of {new}");
        }
        unknown.insert(other.ask(SHORT)?);
        open.extend([asker, other]);
    }
    ensure!(unknown == [old, new].into(), "what no Initial began was answered by {unknown:?}");
    Ok(())
}

/// Who talks stays with a drained backend; who was silent longer than the time-out goes to the other.
fn a_silent_udp_flow_moves_in_time(tools: Tools) -> Result<()> {
    let service = echo(VIP4).only(&TWO).idle("1s");
    // A sweep takes a hundredth of the time at most: of a large table it may come seldom.
    let site =
        Site::with_daemon(tools, &Config { flows: Some(1 << 14), ..Config::new(vec![service.clone()]) })?;
    let [old, new] = TWO.map(|node| node.to_string());
    let (mut of_old, client) = (Vec::new(), site.client(1));
    while of_old.len() < 2 {
        let asker = Asker::open(&client, service.vip)?;
        if asker.ask("who?")? == old {
            of_old.push(asker);
        }
    }
    let [talker, silent] = [&of_old[0], &of_old[1]];
    site.cli()?.succeed(&["backend", "drain", "echo", &service.endpoint(TWO[0])])?;
    wait::until(AGED, "only the talker's slot moves", || {
        ensure!(talker.ask("still you?")? == old, "the talker was moved");
        let moving = site.cli()?.service("echo")?.slots.moving;
        ensure!(moving == 1, "{moving} slots move");
        Ok(())
    })?;
    let name = silent.ask("who now?")?;
    ensure!(name == new, "{name} answered instead of {new}");
    ensure!(talker.ask("and you?")? == old, "the talker was moved");
    Ok(())
}

/// Where a backend receives tunnelled packets as they are.
enum Receiver {
    /// IPv4 in IPv4.
    Ipip(OwnedFd),
    Gue(UdpSocket),
}

impl Receiver {
    fn ipip() -> Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::IPIP))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ARRIVES))?;
        Ok(Self::Ipip(socket))
    }

    fn gue(port: u16) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(ARRIVES))?;
        Ok(Self::Gue(socket))
    }

    /// The outer source, and the port from which the client sent.
    fn receive(&self) -> Result<(SocketAddr, u16)> {
        let mut packet = [0; 256];
        let (from, inner) = match self {
            Self::Ipip(socket) => {
                let (length, _) = recv(socket, &mut packet, RecvFlags::empty())?;
                let source: [u8; 4] = packet[12..16].try_into()?;
                ((source, 0).into(), &packet[20..length])
            }
            Self::Gue(socket) => {
                let (length, from) = socket.recv_from(&mut packet)?;
                (from, &packet[..length])
            }
        };
        let ports = inner.get(if inner[0] >> 4 == 4 { 20 } else { 40 }..).and_then(<[u8]>::first_chunk);
        Ok((from, u16::from_be_bytes(*ports.context("the inner packet is cut off")?)))
    }
}

/// Many flows send two datagrams each into a tunnel to the first backend: the outer sources of each.
fn outer_sources(
    tools: Tools,
    way: Way,
    options: &str,
    receiver: impl FnOnce() -> Result<Receiver> + Send,
) -> Result<Vec<SocketAddr>> {
    let service = way.udp_echo().only(&[Node::Backend(1)]).with(options);
    let site = Site::with_daemon(tools, &Config::new(vec![service.clone()]))?;
    let receiver = site.lab.namespace(Node::Backend(1)).run(receiver)??;
    let mut sources = Vec::new();
    for _ in 0..MANY {
        let asker = Asker::open(&site.client(1), service.vip)?;
        let arrive = || {
            asker.tell(b"tunnelled")?;
            let (from, port) = receiver.receive()?;
            ensure!(
                port == asker.port()?,
                "a packet from port {port} arrived instead of one from {}",
                asker.port()?
            );
            Ok(from)
        };
        let (first, second) = (arrive()?, arrive()?);
        ensure!(first == second, "a flow came from {first} and from {second}");
        sources.push(first);
    }
    Ok(sources)
}

fn way(name: &str) -> Result<Way> {
    ways().into_iter().find(|way| way.name == name).with_context(|| format!("there is no way {name}"))
}

/// Different ones, all with the same beginning.
fn ensure_from_prefix(sources: &[SocketAddr], prefix: &str) -> Result<()> {
    let inside = sources.iter().all(|source| source.ip().to_string().starts_with(prefix));
    let different: BTreeSet<IpAddr> = sources.iter().map(SocketAddr::ip).collect();
    ensure!(
        inside && different.len() > sources.len() / 2,
        "packets should be from {prefix}, but are from {sources:?}"
    );
    Ok(())
}

fn ipip_comes_from_a_prefix(tools: Tools) -> Result<()> {
    let options = "outer_source = \"10.99.0.0/16\"";
    ensure_from_prefix(&outer_sources(tools, way("ipip_4in4")?, options, Receiver::ipip)?, "10.99.")
}

fn gue_comes_from_a_prefix(tools: Tools) -> Result<()> {
    let options = "outer_source = \"fd00:99::/96\"\ngue_port = 6081";
    ensure_from_prefix(&outer_sources(tools, way("gue_4in6")?, options, || Receiver::gue(6081))?, "fd00:99::")
}

/// The port still tells flows apart.
fn gue_comes_from_a_fixed_address(tools: Tools) -> Result<()> {
    let options = "outer_source = \"10.99.0.1\"";
    let sources = outer_sources(tools, way("gue_6in4")?, options, || Receiver::gue(6080))?;
    let ports: BTreeSet<u16> = sources.iter().map(SocketAddr::port).collect();
    let fixed = sources.iter().all(|source| source.ip().to_string() == "::ffff:10.99.0.1");
    let dynamic = ports.iter().all(|port| *port >= 0xc000);
    ensure!(fixed && dynamic && ports.len() > sources.len() / 2, "packets are from {sources:?}");
    Ok(())
}

fn vips_answer_echo_requests(tools: Tools) -> Result<()> {
    let mut six = web(VIP6);
    "web6".clone_into(&mut six.name);
    let site = Site::with_daemon(tools, &Config::new(vec![web(VIP4), six]))?;
    for (_, vip) in FAMILIES {
        for length in [0, 1, 1400] {
            ping(&site.client(2), vip, length)?;
        }
    }
    Ok(())
}
