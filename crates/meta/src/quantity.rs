//! Quantities: `100m`, `1.5Gi`, `2e3`. Exact to a nano, compared and added as numbers, printed in canonical form.
//!
//! The value is kept in nano units in 128 bits: every quantity upstream accepts fits, and anything finer than a nano is
//! rounded up, as upstream does.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Upstream caps at 2^63-1 in the base unit.
const NANO_MAX: i128 = (i64::MAX as i128) * NANO;

/// Which family of suffixes the text used; kept for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, ...
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, ...
    DecimalSi,
    /// `e3`
    DecimalExponent,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Number,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// A whole number of units, printed with decimal suffixes.
    pub fn from_units(units: i64) -> Self {
        Quantity { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// A number of thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// In whole units, rounded up.
    pub fn units(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }

    /// In thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// As a floating point number, for metrics.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub fn saturating_add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos).min(NANO_MAX), format }
    }

    pub fn saturating_sub(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_sub(other.nanos).max(-NANO_MAX), format }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as upstream's `ScaledValue`.
fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, digits) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, format) = suffix_scale(suffix)?;
        let nanos = scaled(whole, fraction, scale)?;
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// What one unit of the suffix is worth: a power of two or a power of ten.
#[derive(Clone, Copy)]
enum Scale {
    Two(u32),
    Ten(i32),
}

fn suffix_scale(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix);
    if let Some(at) = binary {
        return Ok((Scale::Two(10 * (at as u32 + 1)), Format::BinarySi));
    }
    let decimal = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            return Ok((Scale::Ten(exponent), Format::DecimalExponent));
        }
    };
    Ok((Scale::Ten(decimal), Format::DecimalSi))
}

/// `whole.fraction` times the scale, in nanos, rounded up and capped.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> Result<i128, QuantityError> {
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if digits.len() > 37 {
        return if whole.trim_start_matches('0').len() > 19 { Ok(NANO_MAX) } else { Err(QuantityError::Number) };
    }
    let mantissa: i128 = digits.parse().map_err(|_| QuantityError::Number)?;
    let (mut power, factor) = match scale {
        Scale::Ten(exponent) => (exponent, 1i128),
        Scale::Two(bits) => (0, 1i128 << bits),
    };
    power = power.saturating_add(9).saturating_sub(fraction.len() as i32);
    let value = mantissa.checked_mul(factor);
    let value = match (value, power) {
        (None, _) => None,
        (Some(value), 0..) => {
            u32::try_from(power).ok().and_then(|p| 10i128.checked_pow(p)).and_then(|scale| value.checked_mul(scale))
        }
        (Some(value), _) => Some(10i128.checked_pow(power.unsigned_abs()).map_or(1, |scale| div_ceil(value, scale))),
    };
    Ok(value.unwrap_or(NANO_MAX).min(NANO_MAX))
}

/// Canonical: the largest suffix that leaves no fraction. Binary quantities that are not whole print as decimal.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySi if self.is_whole() && self.nanos.abs() >= 1024 * NANO => {
                write_binary(self.nanos / NANO, f)
            }
            Format::BinarySi | Format::DecimalSi => write_decimal(self.nanos, f),
            Format::DecimalExponent => write_exponent(self.nanos, f),
        }
    }
}

fn write_binary(mut value: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = next;
    }
    write!(f, "{value}{suffix}")
}

/// Takes factors of a thousand out of a number of nanos; says how many were taken.
fn thousands(mut value: i128, most: usize) -> (i128, usize) {
    let mut taken = 0;
    while taken < most && value % 1000 == 0 {
        value /= 1000;
        taken += 1;
    }
    (value, taken)
}

fn write_decimal(nanos: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let (value, taken) = thousands(nanos, SUFFIXES.len() - 1);
    write!(f, "{value}{}", SUFFIXES[taken])
}

fn write_exponent(nanos: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (value, taken) = thousands(nanos, 9);
    match 3 * taken as i32 - 9 {
        0 => write!(f, "{value}"),
        exponent => write!(f, "{value}e{exponent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("1500k", "1500k"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("-1", "-1"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("9999999999999999999999", "9223372036854775807"),
            ("128974848", "128974848"),
            ("123Mi", "123Mi"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_upstream_refuses() {
        for text in ["", "-", "1 Gi", "1gi", "Gi", "1.2.3", "1Kii", "0x10", "1e", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn compares_and_adds_as_numbers() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("1Ki"), parse("1024"));
        assert!(parse("1M") < parse("1Mi"));
        assert_eq!(parse("250m").saturating_add(parse("0.75")).to_string(), "1");
        assert_eq!(parse("100m").units(), 1);
        assert_eq!(parse("1.0001").milli(), 1001);
        assert_eq!(Quantity::ZERO.saturating_add(parse("1Gi")).to_string(), "1Gi");
    }
}
