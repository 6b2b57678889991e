//! Limiters: how much of what from whom is too much, and what is done about it.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use lb_common::limiter::rule::{Algorithm, HORIZON_NS, MAX_RATE, Rule, RuleError, SHORTEST_WINDOW_NS};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Protocol, Service};
use crate::config::{show_bits, show_duration};

/// What a limiter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bits of packets, from the Ethernet header to the end of the IP packet.
    Bits,
    /// Packets that open a flow: SYNs of TCP, Initial packets of QUIC.
    NewConnections,
}

impl Unit {
    /// The key of its rate in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bits => "bits",
            Self::NewConnections => "new_connections",
        }
    }
}

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An IPv4 address, or the /64 of an IPv6 address: what one customer has.
    Source,
    /// A prefix of the source address.
    Prefix {
        /// Its bits in IPv4, 1 to 32.
        v4: u8,
        /// Its bits in IPv6, 1 to 128.
        v6: u8,
    },
    /// All sources of the service.
    Service,
}

impl Scope {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Prefix { .. } => "prefix",
            Self::Service => "service",
        }
    }
}

/// How what comes is weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A token bucket, or a leaky bucket as a meter, which is the same seen from the other side.
    Bucket {
        /// What may come at once, in the limiter's unit.
        burst: u64,
        /// Whether it was asked for under the second name.
        leaks: bool,
    },
    /// What the rate makes of a window, counted within it.
    Window {
        /// Whether the window before counts too, as far as it is still within one length.
        slides: bool,
        /// Its length.
        length: Duration,
    },
}

/// What is done with packets that are too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They are dropped.
    Drop,
    /// They get an ECN mark if their sender understands it, and pass.
    Mark,
    /// They are counted, and pass.
    Shadow,
}

impl Action {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Mark => "mark",
            Self::Shadow => "shadow",
        }
    }

    /// What happened to packets that were too much, as metrics have it.
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Drop => "dropped",
            Self::Mark => "marked",
            Self::Shadow => "would_drop",
        }
    }
}

/// Everything about a limiter but its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is counted.
    pub unit: Unit,
    /// How much of it in a second.
    pub rate: u64,
    /// Who is counted together.
    pub scope: Scope,
    /// How it is weighed.
    pub shape: Shape,
    /// What is done with what is too much.
    pub action: Action,
}

/// A limiter of one service or of all, one that the limiter's word can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    name: String,
    policy: Policy,
    rule: Rule,
}

/// The highest rate of packets and connections: above it one costs less than the limiter can tell apart.
pub const MAX_UNIT_RATE: u64 = 100_000_000;
/// How long windows may be; whole milliseconds.
pub const WINDOWS: RangeInclusive<Duration> =
    Duration::from_nanos(SHORTEST_WINDOW_NS)..=Duration::from_millis(HORIZON_NS / 1_000_000);
/// The highest rate of bits.
pub const MAX_BIT_RATE: u64 = MAX_RATE * 8;
/// The least burst of bits: a packet of 1500 bytes and its Ethernet header.
pub const LEAST_BITS: u64 = 1514 * 8;

/// Why there is no such limiter: a key of the configuration, and what is wrong with its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct LimitError {
    /// The key.
    pub key: &'static str,
    /// A sentence.
    pub reason: String,
}

impl Limit {
    /// The limiter of this name and policy.
    pub fn try_new(name: impl Into<String>, policy: Policy) -> Result<Self, LimitError> {
        let rule = policy.check().and_then(|()| policy.rule().map_err(|error| policy.explain(error)))?;
        Ok(Self { name: name.into(), policy, rule })
    }

    /// Its name, unique within its service or among those of all services.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the program goes by.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether it counts anything of a service's packets.
    pub fn concerns(&self, service: &Service) -> bool {
        let opens = service.protocol == Protocol::Tcp || service.options.quic;
        self.policy.unit != Unit::NewConnections || opens
    }
}

impl Policy {
    /// Whether what each source sends is to be measured: it only counts, and tells sources apart.
    pub fn is_measured(&self) -> bool {
        self.action == Action::Shadow && self.scope != Scope::Service
    }

    /// The name of a limiter that got none.
    pub fn default_name(&self) -> String {
        format!("{}-{}", self.scope.name(), self.unit.key().replace('_', "-"))
    }

    /// What the rule does not know.
    fn check(&self) -> Result<(), LimitError> {
        let refuse = |key, reason| Err(LimitError { key, reason });
        match (self.unit, self.shape, self.action) {
            (Unit::Bits, Shape::Bucket { burst, .. }, _) if burst < LEAST_BITS => {
                let (burst, least) = (show_bits(burst), show_bits(LEAST_BITS));
                refuse("burst", format!("{burst} is less than one packet of 1514 bytes; expected {least} or more"))
            }
            (Unit::NewConnections, _, Action::Mark) => refuse(
                "action",
                "packets that open connections cannot be marked (RFC 3168, section 6.1.1); expected \"drop\" or \
                 \"shadow\""
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn rule(&self) -> Result<Rule, RuleError> {
        match (self.shape, self.unit) {
            (Shape::Bucket { burst, .. }, Unit::Bits) => Rule::byte_bucket(self.rate / 8, burst / 8),
            (Shape::Bucket { burst, .. }, _) => Rule::token_bucket(self.rate, burst),
            (Shape::Window { slides, length }, unit) => {
                let algorithm = if slides { Algorithm::SlidingWindow } else { Algorithm::FixedWindow };
                let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
                let rate = if unit == Unit::Bits { self.rate / 8 } else { self.rate };
                let limit = u128::from(rate) * u128::from(length) / 1_000_000_000;
                Rule::window(algorithm, u64::try_from(limit).unwrap_or(u64::MAX), length)
            }
        }
    }

    /// The key that is to blame, and why.
    fn explain(&self, error: RuleError) -> LimitError {
        let key = self.unit.key();
        let (key, reason) = match (error, self.shape) {
            (RuleError::TooSlow, Shape::Bucket { burst, .. }) => {
                let seconds = burst.div_ceil(self.rate.max(1));
                let what = self.show_amount(burst);
                (
                    "burst",
                    format!(
                        "{what} at {} take {seconds} s to refill, which must be less than {} s; lower burst or raise {key}",
                        self.show_rate(),
                        HORIZON_NS / 1_000_000_000 + 1
                    ),
                )
            }
            (RuleError::Window, Shape::Window { length, .. }) => (
                "window",
                format!(
                    "{} is not from {}ms to {}ms",
                    show_duration(length),
                    WINDOWS.start().as_millis(),
                    WINDOWS.end().as_millis()
                ),
            ),
            (RuleError::TooMany, Shape::Window { slides, length }) => {
                let most =
                    if slides { Algorithm::SlidingWindow.most() } else { Algorithm::FixedWindow.most() };
                let what = if self.unit == Unit::Bits { "bytes" } else { "units" };
                (
                    "window",
                    format!(
                        "{} in {} are more than the {most} {what} that such a window counts; shorten window or lower {key}",
                        self.show_rate(),
                        show_duration(length)
                    ),
                )
            }
            (RuleError::Nothing, Shape::Window { length, .. }) => (
                key,
                format!(
                    "{} admits nothing in {}; lengthen window or raise {key}",
                    self.show_rate(),
                    show_duration(length)
                ),
            ),
            (RuleError::NoBurst, _) => ("burst", "0 admits nothing; expected 1 or more".to_owned()),
            _ => (key, format!("{} is more than a limiter can hold, or nothing", self.show_rate())),
        };
        LimitError { key, reason }
    }

    fn show_amount(&self, amount: u64) -> String {
        match self.unit {
            Unit::Packets => format!("{amount} packets"),
            Unit::NewConnections => format!("{amount} new connections"),
            Unit::Bits => show_bits(amount),
        }
    }

    fn show_rate(&self) -> String {
        match self.unit {
            Unit::Bits => format!("{}/s", show_bits(self.rate)),
            _ => format!("{}/s", self.rate),
        }
    }
}

/// Such as `1000 packets/s per source, burst 200`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.show_amount(self.rate))?;
        match self.scope {
            Scope::Source => f.write_str(" per source")?,
            Scope::Prefix { v4, v6 } => write!(f, " per /{v4} or IPv6 /{v6}")?,
            Scope::Service => f.write_str(" in all")?,
        }
        match self.shape {
            Shape::Bucket { burst, .. } if self.unit == Unit::Bits => {
                write!(f, ", burst {}", show_bits(burst))?;
            }
            Shape::Bucket { burst, .. } => write!(f, ", burst {burst}")?,
            Shape::Window { slides, length } => {
                let kind = if slides { "sliding" } else { "fixed" };
                write!(f, ", {kind} window of {}", show_duration(length))?;
            }
        }
        match self.action {
            Action::Drop => Ok(()),
            Action::Mark => f.write_str(", marks"),
            Action::Shadow => f.write_str(", counts only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiters_are_told_in_words() {
        let bucket = |unit, rate, burst, scope, action| Policy {
            unit,
            rate,
            scope,
            shape: Shape::Bucket { burst, leaks: false },
            action,
        };
        let window = |slides| Shape::Window { slides, length: Duration::from_secs(10) };
        let packets = bucket(Unit::Packets, 1000, 200, Scope::Source, Action::Drop);
        let prefix = Scope::Prefix { v4: 24, v6: 48 };
        for (policy, words) in [
            (packets, "1000 packets/s per source, burst 200"),
            (Policy { shape: window(false), ..packets }, "1000 packets/s per source, fixed window of 10s"),
            (
                bucket(Unit::Bits, 200_000_000, 2_000_000, prefix, Action::Mark),
                "200Mbit/s per /24 or IPv6 /48, burst 2Mbit, marks",
            ),
            (
                bucket(Unit::NewConnections, 5, 10, Scope::Service, Action::Shadow),
                "5 new connections/s in all, burst 10, counts only",
            ),
        ] {
            assert_eq!(policy.to_string(), words);
        }
    }
}
