//! Numbers with a unit, as people write them: `10k/s`, `500ms`.

use std::time::Duration;

/// The fastest limit: above it a packet costs less than the limiter can tell apart.
const MAX_RATE: u64 = 100_000_000;

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It does not look like one.
    #[error("{0:?} is not a rate; expected whole packets a second such as \"500/s\", \"10k/s\" or \"2M/s\"")]
    Syntax(String),
    /// It is zero or too large.
    #[error("{0:?} is not from 1/s to 100M/s")]
    Range(String),
}

/// Reads packets a second: a whole number, then nothing, `k` (thousand) or `M` (million), then `/s`.
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    let syntax = || RateError::Syntax(text.to_owned());
    let number = text.strip_suffix("/s").ok_or_else(syntax)?;
    let (digits, scale) = match number.strip_suffix(['k', 'M']) {
        Some(digits) if number.ends_with('k') => (digits, 1_000),
        Some(digits) => (digits, 1_000_000),
        None => (number, 1),
    };
    if !is_digits(digits) {
        return Err(syntax());
    }
    let rate = digits.parse().ok().and_then(|count: u64| count.checked_mul(scale));
    rate.filter(|rate| (1..=MAX_RATE).contains(rate)).ok_or_else(|| RateError::Range(text.to_owned()))
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration; expected a whole number with ms, s, m or h, such as \"500ms\", \"1s\" or \"2m\""
)]
pub struct DurationError(String);

/// The units of durations in milliseconds. `ms` comes before `s`, which it ends with.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a duration: a whole number and `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let split = |(unit, scale)| Some((text.strip_suffix(unit)?, scale));
    let parsed = UNITS.into_iter().find_map(split).filter(|(digits, _)| is_digits(digits));
    let milliseconds = parsed.and_then(|(digits, scale)| digits.parse::<u64>().ok()?.checked_mul(scale));
    milliseconds.map(Duration::from_millis).ok_or_else(|| DurationError(text.to_owned()))
}

/// A duration as [`parse_duration`] reads it, in the largest unit that divides it; less than a millisecond is lost.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let divides = |(_, scale): &(&str, u64)| milliseconds.is_multiple_of(u128::from(*scale));
    let (unit, scale) = UNITS.into_iter().rfind(divides).unwrap_or(UNITS[0]);
    format!("{}{unit}", milliseconds / u128::from(scale))
}

/// `u64::from_str` also takes a `+`.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit_and_a_scale() {
        for (text, rate) in
            [("1/s", 1), ("500/s", 500), ("10k/s", 10_000), ("2M/s", 2_000_000), ("100M/s", MAX_RATE)]
        {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for text in
            ["", "500", "/s", "k/s", "2.5k/s", "-1/s", "+1/s", "10K/s", "10 k/s", "1G/s", "10kM/s", "10k/m"]
        {
            assert_eq!(parse_rate(text), Err(RateError::Syntax(text.to_owned())), "{text}");
        }
        for text in
            ["0/s", "0k/s", "101M/s", "100000001/s", "99999999999999999999/s", "18446744073709551615M/s"]
        {
            assert_eq!(parse_rate(text), Err(RateError::Range(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("1s", 1_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "ms", "1.5s", "-1s", "+1s", "1d", "1 s", "1S", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), Err(DurationError(text.to_owned())), "{text}");
        }
        assert!(parse_duration("18446744073709551615m").is_err());
    }

    #[test]
    fn durations_are_shown_as_they_are_read() {
        for text in ["500ms", "1500ms", "1s", "90s", "15m", "61m", "2h"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_hours(2)), "2h");
    }
}
