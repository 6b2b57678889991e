//! The command line of `lb-lab`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::xdp::{Xdp, XdpMode};
use clap::{Parser, Subcommand};
use lb_userspace::datapath::BENCH_OBJECT;

use crate::interrupt::{self, Interrupted};
use crate::load::{Flood, KeepAlive, get};
use crate::net::{Node, VIP4, VIP6};
use crate::servers::Serve;
use crate::tools::Tools;
use crate::{demo, playground};

/// A load balancer, clients and servers in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "lb-lab", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what the load balancer does, in a network that is removed at the end
    Demo,
    /// Set the network up and leave it running, to play with
    Up,
    /// Run a command, or a shell, on a machine of the network
    Enter {
        /// client1, client2, balancer, backend1, backend2 or backend3
        node: Node,
        /// The command; a shell if there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// End the network that `up` set up
    Down,
    /// Fetch a page like curl, each time over a new connection
    Http {
        #[arg(help = "Such as http://192.0.2.10/ or http://[2001:db8::10]/")]
        url: Url,
        /// How often
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
        /// Over one connection instead
        #[arg(long)]
        keep_alive: bool,
    },
    /// Flood the lab's UDP echo service, to see its limiter at work
    Flood {
        #[arg(default_value = "192.0.2.10:7", help = "A VIP of the lab, 192.0.2.10:7 or [2001:db8::10]:7")]
        target: SocketAddr,
        /// Datagrams a second
        #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// For so many seconds
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// Servers of a backend
    #[command(hide = true)]
    Serve(Serve),
    /// Take what the other end of a veth pair sends by XDP, until killed
    #[command(hide = true)]
    Receive {
        #[arg(long)]
        interface: String,
    },
}

/// Where a page is: `http://ADDRESS[:PORT][/PATH]`.
#[derive(Clone, Debug)]
struct Url {
    target: SocketAddr,
    path: String,
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let bare: Result<IpAddr, _> = authority.trim_matches(['[', ']']).parse();
        let target = match (authority.parse::<SocketAddr>(), bare) {
            (Ok(target), _) => target,
            (_, Ok(address)) => SocketAddr::new(address, 80),
            _ => bail!(
                "{authority:?} is not an address; expected http://192.0.2.10/ or http://[2001:db8::10]/"
            ),
        };
        Ok(Self { target, path: format!("/{path}") })
    }
}

/// Runs `lb-lab`. Exit codes: 0 all well, 1 a difference or an error, 2 usage, 130 interrupted.
pub fn main() -> ExitCode {
    match run(Arguments::parse().action) {
        Ok(code) => code,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("lb-lab: interrupted; everything that was set up is removed again");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("lb-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Demo => {
            prepare()?;
            return demo::run(Tools::beside_this_program()?);
        }
        Action::Up => {
            prepare()?;
            playground::up(Tools::beside_this_program()?)?;
        }
        Action::Down => {
            prepare()?;
            playground::down()?;
        }
        Action::Enter { node, command } => bail!(playground::enter(node, &command)),
        Action::Http { url, count, keep_alive } => fetch(&url, count, keep_alive)?,
        Action::Flood { target, rate, seconds } => flood(target, rate, seconds)?,
        Action::Serve(serve) => serve.run()?,
        Action::Receive { interface } => receive(&interface)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces and XDP need root: run this again with sudo"
    );
    interrupt::watch().context("cannot watch for signals")
}

fn fetch(url: &Url, count: u32, keep_alive: bool) -> Result<()> {
    let mut connection = keep_alive.then(|| KeepAlive::connect(url.target)).transpose()?;
    for _ in 0..count {
        let page = match &mut connection {
            Some(connection) => connection.ask()?,
            None => get(url.target, &url.path)?,
        };
        println!("{}", page.trim_end());
    }
    Ok(())
}

fn flood(target: SocketAddr, rate: u32, seconds: u64) -> Result<()> {
    let vips = [IpAddr::from(VIP4), IpAddr::from(VIP6)];
    ensure!(vips.contains(&target.ip()), "only the lab's own VIPs are flooded: {VIP4} and {VIP6}");
    let report = Flood { target, rate, duration: Duration::from_secs(seconds) }.run()?;
    println!("sent {} datagrams in {:.1?}, {} were answered", report.sent, report.took, report.answered);
    Ok(())
}

/// Puts a program that does nothing on an interface. It stays there for as long as this process, which owns the link, lives.
fn receive(interface: &str) -> Result<()> {
    let mut object = aya::Ebpf::load(BENCH_OBJECT).context("cannot load the object")?;
    let program = object.program_mut("pass_floor").context("the object has no program pass_floor")?;
    let program: &mut Xdp = program.try_into().context("pass_floor is not an XDP program")?;
    program.load().context("cannot load the program")?;
    program.attach(interface, XdpMode::Driver).context("cannot attach the program")?;
    println!("receiving on {interface}");
    io::stdout().flush().context("cannot say that it is ready")?;
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn urls_may_leave_out_what_is_usual() {
        let target = |text: &str| text.parse::<Url>().map(|url| (url.target.to_string(), url.path)).unwrap();
        assert_eq!(target("http://192.0.2.10/a/b"), ("192.0.2.10:80".to_owned(), "/a/b".to_owned()));
        assert_eq!(target("http://[2001:db8::10]"), ("[2001:db8::10]:80".to_owned(), "/".to_owned()));
        assert_eq!(target("[2001:db8::10]:8080/"), ("[2001:db8::10]:8080".to_owned(), "/".to_owned()));
        assert!("http://example.org/".parse::<Url>().is_err());
    }
}
