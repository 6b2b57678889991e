//! The `ip` command (iproute2). The only file to change when the network is to be made by netlink instead.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs lines of `ip -batch` in this process's own namespace.
pub(super) fn host(lines: &[String]) -> Result<()> {
    batch(Command::new("ip"), lines)
}

/// Runs lines of `ip -batch` in a namespace.
pub(super) fn inside(namespace: &str, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace]);
    batch(command, lines)
}

fn batch(mut command: Command, lines: &[String]) -> Result<()> {
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run the ip command: is iproute2 installed?")?;
    let mut stdin = child.stdin.take().context("the ip command has no standard input")?;
    stdin.write_all(lines.join("\n").as_bytes()).context("cannot write to the ip command")?;
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for the ip command")?;
    if !output.status.success() {
        bail!("ip refused: {}\nin:\n{}", String::from_utf8_lossy(&output.stderr).trim(), lines.join("\n"));
    }
    Ok(())
}

/// Asks `ip` in a namespace and returns its JSON.
pub(super) fn query(namespace: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-json"]).args(arguments);
    let text = process::succeed(command, PATIENCE)?;
    serde_json::from_str(&text).with_context(|| format!("ip {arguments:?} did not answer in JSON"))
}

/// Deletes every veth of a namespace, and with each its other end.
pub(super) fn delete_links(namespace: &str) -> Result<()> {
    let veths = query(namespace, &["link", "show", "type", "veth"])?;
    let names = veths.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    let lines: Vec<String> = names.map(|name| format!("link delete dev {name}")).collect();
    if lines.is_empty() { Ok(()) } else { inside(namespace, &lines) }
}
