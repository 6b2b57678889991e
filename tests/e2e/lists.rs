//! Deny and allow lists: a client is cut off and let back, and lists take each other's place while packets flow.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::daemon::{Cli, Config};
use lb_tests::load::{Asker, Flood};
use lb_tests::net::{Node, VIP4};
use lb_tests::servers::ECHO_PORT;
use lb_tests::site::Site;
use lb_tests::tools::Tools;
use lb_userspace::view::{Applied, PrefixList, ReasonCount};

use crate::cases::{Case, FAMILIES, cases, echo, ensure_answered, ensure_only};

pub(crate) fn cases() -> Vec<Case> {
    let case = |(family, vip)| {
        let test = move |tools| deny_cuts_a_client_off(tools, vip);
        Case::new(format!("lists::deny_cuts_a_client_off_and_remove_lets_it_back_{family}"), test)
    };
    let mut cases = cases!["lists": deny_holds_while_lists_are_replaced, an_allowed_client_passes_a_limit, a_long_deny_list_is_loaded_at_start];
    cases.extend(FAMILIES.map(case));
    cases
}

const OUTCAST: Node = Node::Client(1);

fn denied(cli: &Cli) -> Result<u64> {
    let status = cli.status()?;
    let drops = status.interfaces.iter().flat_map(|interface| &interface.drops);
    Ok(drops.filter(|drop: &&ReasonCount| drop.reason == "denied").map(|drop| drop.packets).sum())
}

fn deny_cuts_a_client_off(tools: Tools, vip: IpAddr) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(vip)]))?;
    let (cli, target) = (site.cli()?, SocketAddr::new(vip, ECHO_PORT));
    let outcast = OUTCAST.address_like(vip).to_string();
    let ask = |number, count| Asker::requests(&site.client(number), target, count);
    ensure_answered(&ask(1, 10)?)?;

    let applied: Applied = cli.ask(&["deny", "add", &outcast, "203.0.113.0/24"])?;
    ensure!(applied.summary == "deny: 2 prefixes added, 2 on the list", "{applied:?}");
    let cut_off = ask(1, 3)?;
    ensure!(cut_off.failed() == 3, "a denied client is answered: {cut_off:?}");
    ensure_answered(&ask(2, 10)?)?;
    ensure!(denied(cli)? == 3, "{} packets are counted", denied(cli)?);
    let list: PrefixList = cli.ask(&["deny", "list"])?;
    ensure!(list.prefixes.contains(&outcast) && list.prefixes.len() == 2, "{list:?}");

    cli.succeed(&["deny", "remove", &outcast])?;
    ensure_answered(&ask(1, 10)?)?;
    ensure!(denied(cli)? == 3, "{} packets are counted", denied(cli)?);
    let again = cli.run(&["deny", "remove", &outcast])?;
    ensure!(again.code == Some(5), "{again:?}");
    Ok(())
}

/// Real packets of a denied client, many a millisecond, while what else is denied and allowed changes.
fn deny_holds_while_lists_are_replaced(tools: Tools) -> Result<()> {
    let outcast = OUTCAST.ipv4();
    let config = Config::new(vec![echo(VIP4)]).listing(&format!("deny = [\"{outcast}\"]"));
    let site = Site::with_daemon(tools, &config)?;
    let (cli, target) = (site.cli()?, SocketAddr::new(VIP4.into(), ECHO_PORT));
    let flood = Flood { target, rate: 20_000, duration: Duration::from_secs(3) }.start(&site.client(1));
    let others: Vec<String> = (0..200).map(|n| format!("203.0.{n}.0/24")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let mut changes = 0;
    while denied(cli)? < 30_000 {
        for (list, action) in [("deny", "add"), ("allow", "add"), ("deny", "remove"), ("allow", "remove")] {
            let prefixes = if list == "deny" { &others[..100] } else { &others[100..] };
            cli.succeed(&[&[list, action], prefixes].concat())?;
            changes += 1;
        }
        ensure!(changes < 1000, "the flood does not arrive: {} packets", denied(cli)?);
    }
    let flood = flood.finish()?;
    let service = cli.service("echo")?;
    ensure!(flood.answered == 0, "{} of {} denied datagrams were answered", flood.answered, flood.sent);
    ensure!(denied(cli)? == flood.sent, "{} of {} were denied: {service:?}", denied(cli)?, flood.sent);
    ensure!(changes >= 8, "only {changes} changes were made meanwhile");
    ensure_only(&Asker::requests(&site.client(2), target, 20)?, &lb_tests::net::BACKENDS)
}

fn an_allowed_client_passes_a_limit(tools: Tools) -> Result<()> {
    let site = Site::with_daemon(tools, &Config::new(vec![echo(VIP4).limited(1, 5)]))?;
    let (cli, target) = (site.cli()?, SocketAddr::new(VIP4.into(), ECHO_PORT));
    let friend = Node::Client(1).ipv4().to_string();
    let ask = |number, count| Asker::requests(&site.client(number), target, count);
    cli.succeed(&["allow", "add", &friend])?;
    ensure_answered(&ask(1, 50)?)?;
    ensure!(cli.service("echo")?.limited == 0, "an allowed client was limited");
    // Others are, and so is the client when it is allowed no more.
    let stranger = ask(2, 8)?;
    ensure!((1..8).contains(&stranger.failed()), "{stranger:?}");
    cli.succeed(&["allow", "remove", &friend])?;
    let friend = ask(1, 8)?;
    ensure!((1..8).contains(&friend.failed()), "{friend:?}");
    let limited = cli.service("echo")?.limited;
    ensure!(limited == (stranger.failed() + friend.failed()) as u64, "{limited} were limited");
    Ok(())
}

/// 100 000 prefixes in a file, and one more command.
fn a_long_deny_list_is_loaded_at_start(tools: Tools) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("deny.txt");
    let mut lines: Vec<String> = (0..65_536).map(|n| format!("100.{}.{}.0/28\n", n >> 8, n & 0xff)).collect();
    lines.extend((0..34_464).map(|n| format!("2001:db8:{:x}:{:x}::/64\n", 0x1000 + (n >> 8), n & 0xff)));
    std::fs::write(&file, lines.concat() + &OUTCAST.ipv4().to_string())?;
    let config = Config::new(vec![echo(VIP4)]).listing(&format!("deny_file = \"{}\"", file.display()));
    let mut site = Site::new(tools)?;
    site.serve(&config)?;
    let (cli, target) = (site.cli()?, SocketAddr::new(VIP4.into(), ECHO_PORT));
    let lists = cli.status()?.lists;
    ensure!((lists.denied, lists.allowed) == (100_001, 0), "{lists:?}");
    ensure_answered(&Asker::requests(&site.client(2), target, 10)?)?;
    ensure!(Asker::requests(&site.client(1), target, 2)?.failed() == 2, "a denied client is answered");
    cli.succeed(&["deny", "remove", &OUTCAST.ipv4().to_string()])?;
    ensure_answered(&Asker::requests(&site.client(1), target, 10)?)
}
