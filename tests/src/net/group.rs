//! Bare namespaces, for networks that do not look like the lab.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Namespace, Node, existing, features, ip, plan, remove, unique_prefix};
use crate::{interrupt, process};

const PATIENCE: Duration = Duration::from_secs(10);

/// Namespaces that their owner furnishes. Dropping it removes every one of them, with its links.
#[derive(Debug)]
pub struct Group {
    prefix: String,
    names: Vec<String>,
}

impl Group {
    /// Empty namespaces, with names that no other process uses.
    pub fn unique(names: &[&str]) -> Result<Self> {
        interrupt::check()?;
        let prefix = unique_prefix();
        // The value exists before the first namespace does: whatever fails from here on is cleaned up by `drop`.
        let group = Self { names: names.iter().map(|name| format!("{prefix}{name}")).collect(), prefix };
        ensure!(existing(&group.names).is_empty(), "there are namespaces named {}* already", group.prefix);
        let lines: Vec<_> = group.names.iter().map(|name| format!("netns add {name}")).collect();
        ip::host(&lines).context("cannot make the namespaces")?;
        Ok(group)
    }

    /// What `ip netns` calls a namespace of the group.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A namespace of the group.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::named(self.full_name(name))
    }

    /// Gives a namespace of the group the kernel settings of such a machine of the lab.
    pub fn set_up_like(&self, name: &str, node: Node) -> Result<()> {
        self.namespace(name).run(|| plan::write_settings(node))?
    }

    /// What `ip` answers in JSON in a namespace of the group.
    pub fn query(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        ip::query(&self.full_name(name), arguments)
    }

    /// Runs lines of `ip -batch` in a namespace of the group.
    pub fn ip(&self, name: &str, lines: &[String]) -> Result<()> {
        ip::inside(&self.full_name(name), lines)
    }

    /// The number of a device.
    pub fn index(&self, name: &str, device: &str) -> Result<u32> {
        let links = ip::query(&self.full_name(name), &["link", "show", "dev", device])?;
        let index = links[0]["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok());
        index.with_context(|| format!("{device} has no number"))
    }

    /// Switches features of a device, by the kernel's names for them.
    pub fn set_features(&self, name: &str, device: &str, wanted: &[(&str, bool)]) -> Result<()> {
        self.namespace(name).run(|| features::set(device, wanted))?
    }

    /// Lets a thread of the kernel's poll a device, instead of whoever sends to it.
    ///
    /// `/sys` shows the namespace in which it was mounted; `ip netns exec` mounts it anew.
    pub fn set_threaded(&self, name: &str, device: &str) -> Result<()> {
        let mut command = Command::new("ip");
        let set = format!("echo 1 > /sys/class/net/{device}/threaded");
        command.args(["netns", "exec", &self.full_name(name), "sh", "-c", &set]);
        process::succeed(command, PATIENCE).map(drop)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.names) {
            eprintln!("could not remove the namespaces {}*: {error:#}", self.prefix);
        }
    }
}
