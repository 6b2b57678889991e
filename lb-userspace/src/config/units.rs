//! Numbers with a unit, as people write them: `10k/s`, `200Mbit/s`, `500ms`.

use std::time::Duration;

use crate::model::{MAX_BIT_RATE, MAX_UNIT_RATE};

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It does not look like one.
    #[error("{0:?} is not a rate; expected a whole number a second such as \"500/s\", \"10k/s\" or \"2M/s\"")]
    Syntax(String),
    /// It is zero or too large.
    #[error("{0:?} is not from 1/s to 100M/s")]
    Range(String),
    /// It does not look like a rate of bits.
    #[error(
        "{0:?} is not a rate of bits; expected a whole number such as \"512kbit/s\", \"200Mbit/s\" or \"10Gbit/s\""
    )]
    BitSyntax(String),
    /// It is less than a byte or too large.
    #[error("{0:?} is not from 8bit/s to 8Tbit/s")]
    BitRange(String),
    /// It does not look like a number of bits.
    #[error(
        "{0:?} is not a number of bits; expected a whole number such as \"64kbit\", \"2Mbit\" or \"1Gbit\""
    )]
    Bits(String),
}

/// Thousands, by the letters that stand for them.
const SCALES: [(&str, u64); 4] =
    [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// A whole number and a letter of [`SCALES`] or none; what exceeds 64 bits is their largest number.
fn scaled(text: &str) -> Option<u64> {
    let split = |(letter, scale)| Some((text.strip_suffix(letter)?, scale));
    let (digits, scale) = SCALES.into_iter().find_map(split).unwrap_or((text, 1));
    is_digits(digits).then(|| digits.parse().unwrap_or(u64::MAX).saturating_mul(scale))
}

/// Reads packets or connections a second: a whole number, then nothing, `k` (thousand) or `M` (million), then `/s`.
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    let number = text.strip_suffix("/s").filter(|number| !number.ends_with(['G', 'T'])).and_then(scaled);
    let rate = number.ok_or_else(|| RateError::Syntax(text.to_owned()))?;
    if (1..=MAX_UNIT_RATE).contains(&rate) { Ok(rate) } else { Err(RateError::Range(text.to_owned())) }
}

/// Reads bits a second: a whole number, nothing or a letter from `k` to `T`, then `bit/s`.
pub fn parse_bit_rate(text: &str) -> Result<u64, RateError> {
    let number = text.strip_suffix("bit/s").and_then(scaled);
    let rate = number.ok_or_else(|| RateError::BitSyntax(text.to_owned()))?;
    if (8..=MAX_BIT_RATE).contains(&rate) { Ok(rate) } else { Err(RateError::BitRange(text.to_owned())) }
}

/// Reads bits: a whole number, nothing or a letter from `k` to `T`, then `bit`.
pub fn parse_bits(text: &str) -> Result<u64, RateError> {
    text.strip_suffix("bit").and_then(scaled).ok_or_else(|| RateError::Bits(text.to_owned()))
}

/// A number as [`parse_rate`] reads it before its `/s`.
pub fn show_count(count: u64) -> String {
    show_scaled(count, &SCALES[..2])
}

/// Bits as [`parse_bits`] reads them.
pub fn show_bits(bits: u64) -> String {
    show_scaled(bits, &SCALES) + "bit"
}

/// With the largest letter that leaves a whole number.
fn show_scaled(number: u64, scales: &[(&str, u64)]) -> String {
    let divides = |(_, scale): &&(&str, u64)| number != 0 && number.is_multiple_of(*scale);
    match scales.iter().rfind(divides) {
        Some((letter, scale)) => format!("{}{letter}", number / scale),
        None => number.to_string(),
    }
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

/// A duration as [`parse_duration`] reads it, in the largest unit that divides it; less than a millisecond is lost. None at
/// all is `0s`.
pub fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
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
            [("1/s", 1), ("500/s", 500), ("10k/s", 10_000), ("2M/s", 2_000_000), ("100M/s", MAX_UNIT_RATE)]
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
        for text in ["0s", "500ms", "1500ms", "1s", "90s", "15m", "61m", "2h"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_hours(2)), "2h");
    }
}
