//! The keys of a `[[service]]` that most services leave alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::admin::{parse_drain_timeout, parse_slow_start};
use super::document::{Node, Section};
use super::rules::check_outer_source;
use super::service::read_port;
use super::units::parse_duration;
use crate::model::{Affinity, Backend, ForwardMode, GUE_PORT, OuterSource, Protocol, ServiceOptions};

/// Shorter ones forget flows between two packets. The flow table could tell up to 9.8 hours apart.
pub(super) const IDLE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(2);

/// What the options are judged by; `None` where it is wrong or missing, and so cannot judge.
pub(super) struct Context<'s> {
    pub(super) protocol: Option<Protocol>,
    pub(super) mode: Option<ForwardMode>,
    pub(super) backends: &'s [Backend],
}

/// The options of a service, each mistake noted.
pub(super) fn read_options(section: &Section<'_>, context: &Context<'_>) -> ServiceOptions {
    let affinity = section.optional("affinity");
    let affinity =
        affinity.and_then(|node| node.word(&[("flow", Affinity::Flow), ("source", Affinity::Source)]));
    let announce = section.optional("announce").and_then(|node| node.word(&[("l2", ())]));
    let gue_port = section.optional("gue_port");
    if let Some(node) = &gue_port {
        refuse_mode(node, context.mode, &[ForwardMode::Gue], "no UDP tunnel");
    }
    let drain_timeout = section.optional("drain_timeout");
    let slow_start = section.optional("slow_start");
    let idle_timeout = section.optional("idle_timeout").and_then(|node| read_idle_timeout(&node));
    // Whether what is usual is spelt out makes no difference, so it is none in a diff either.
    let usual = context.protocol.map(Protocol::idle_timeout);
    ServiceOptions {
        affinity: affinity.unwrap_or_default(),
        quic: section.optional("quic").is_some_and(|node| read_quic(&node, context.protocol)),
        idle_timeout: idle_timeout.filter(|timeout| usual != Some(*timeout)),
        drain_timeout: drain_timeout.and_then(|node| node.read_with(parse_drain_timeout)),
        slow_start: slow_start.and_then(|node| node.read_with(parse_slow_start)).flatten(),
        announce: announce.is_some(),
        outer_source: section.optional("outer_source").and_then(|node| read_outer_source(&node, context)),
        gue_port: gue_port.and_then(|node| read_port(&node)).filter(|port| *port != GUE_PORT),
    }
}

/// Notes a key that says nothing in the service's mode.
fn refuse_mode(node: &Node<'_>, mode: Option<ForwardMode>, of: &[ForwardMode], lack: &str) {
    if let Some(mode) = mode.filter(|mode| !of.contains(mode)) {
        let modes: Vec<String> = of.iter().map(|mode| format!("{:?}", mode.to_string())).collect();
        node.note(format!("mode {mode} has {lack}; remove the key, or write mode = {}", modes.join(" or ")));
    }
}

fn read_quic(node: &Node<'_>, protocol: Option<Protocol>) -> bool {
    let quic = node.boolean().unwrap_or(false);
    if quic && protocol == Some(Protocol::Tcp) {
        node.note("tcp does not carry QUIC; remove the key, or write protocol = \"udp\"");
    }
    quic
}

fn read_idle_timeout(node: &Node<'_>) -> Option<Duration> {
    let timeout = node.read_with(parse_duration)?;
    if !IDLE_TIMEOUTS.contains(&timeout) {
        node.note(format!("{timeout:?} is not from 1s to 2h"));
    }
    Some(timeout)
}

fn read_outer_source(node: &Node<'_>, context: &Context<'_>) -> Option<OuterSource> {
    refuse_mode(node, context.mode, &[ForwardMode::Ipip, ForwardMode::Gue], "no outer header");
    let source = node.parsed()?;
    if let Err(error) = check_outer_source(source, context.backends) {
        node.note(error.to_string());
    }
    Some(source)
}
