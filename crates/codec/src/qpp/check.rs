//! What to tell the user about QPP parameters before they are used (docs/spec/kcptun.md, section 3.5).
//!
//! The texts are those that kcptun prints: users and their scripts know them.

use core::num::NonZeroU16;

use super::Generation;

/// Parameters that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The number of pads.
    pub count: NonZeroU16,
    /// What is weak about them, in the order in which kcptun prints it.
    pub warnings: Vec<Warning>,
}

/// Usable parameters that are weak.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The key is shorter than the state of a permutation of 256.
    #[error("QPP Warning: 'key' has size of {len} bytes, required {required} bytes at least")]
    ShortKey {
        /// Bytes of the key.
        len: usize,
        /// Bytes that would do.
        required: usize,
    },
    /// Fewer pads than the key can tell apart.
    #[error("QPP Warning: QPPCount {count}, required {required} at least")]
    FewPads {
        /// As configured.
        count: u16,
        /// What would do.
        required: usize,
    },
    /// The count has a factor in common with the eight bits that a pad acts on, so some pads are chosen
    /// less evenly.
    #[error("QPP Warning: QPPCount {count}, choose a prime number for security")]
    NotCoprime {
        /// As configured.
        count: u16,
    },
}

/// Parameters that cannot be used.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// There has to be a pad.
    #[error("QPPCount must be greater than 0 when QPP is enabled")]
    NoPads {
        /// As configured.
        count: i64,
    },
    /// The generator selects pads by 16 bits.
    #[error("QPPCount {count} exceeds the limit of 65535")]
    TooManyPads {
        /// As configured.
        count: i64,
    },
}

/// Judges a key of `key_len` bytes and a number of pads, as configured, for a generation.
///
/// For older generations the lower bounds are those of their derivation.
///
/// # Errors
/// When there cannot be such a number of pads.
pub fn check(
    key_len: usize,
    count: i64,
    generation: Generation,
) -> Result<Parameters, ParameterError> {
    if count <= 0 {
        return Err(ParameterError::NoPads { count });
    }
    let count = u16::try_from(count)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or(ParameterError::TooManyPads { count })?;
    let pads = count.get();
    let mut warnings = Vec::new();
    let required = generation.recommended_key_len();
    if key_len < required {
        warnings.push(Warning::ShortKey {
            len: key_len,
            required,
        });
    }
    let required = generation.chunks();
    if usize::from(pads) < required {
        warnings.push(Warning::FewPads {
            count: pads,
            required,
        });
    }
    if pads.is_multiple_of(2) {
        warnings.push(Warning::NotCoprime { count: pads });
    }
    Ok(Parameters { count, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::load;

    #[test]
    fn texts_match_the_vectors() {
        let file = load("kcptun/qpp.json");
        let checks = file["parameter_checks"].as_array().unwrap();
        assert!(checks.len() >= 10);
        for case in checks {
            let key_len = usize::try_from(case["key_len"].as_u64().unwrap()).unwrap();
            let count = case["count"].as_i64().unwrap();
            match check(key_len, count, Generation::Current) {
                Ok(parameters) => {
                    assert_eq!(case["fatal"], "");
                    assert_eq!(i64::from(parameters.count.get()), count);
                    let texts: Vec<_> =
                        parameters.warnings.iter().map(Warning::to_string).collect();
                    assert_eq!(texts, *case["warnings"].as_array().unwrap());
                }
                Err(error) => assert_eq!(error.to_string(), case["fatal"]),
            }
        }
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        for count in [65536, i64::MAX] {
            assert_eq!(
                check(300, count, Generation::Current),
                Err(ParameterError::TooManyPads { count })
            );
        }
        assert_eq!(
            check(300, i64::MIN, Generation::V2024),
            Err(ParameterError::NoPads { count: i64::MIN })
        );
        assert!(
            check(300, 65535, Generation::V2024)
                .unwrap()
                .warnings
                .is_empty()
        );
    }

    #[test]
    fn older_generations_ask_for_less() {
        assert!(
            check(210, 61, Generation::V2024)
                .unwrap()
                .warnings
                .is_empty()
        );
        assert_eq!(
            check(210, 61, Generation::V20251219).unwrap().warnings,
            [Warning::ShortKey {
                len: 210,
                required: 211
            }]
        );
        assert_eq!(
            check(211, 6, Generation::V2024).unwrap().warnings,
            [Warning::NotCoprime { count: 6 }]
        );
    }
}
