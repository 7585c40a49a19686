//! `SLUICE_STORE_…`: timeouts, retries and concurrency, the same for every object store.

use std::time::Duration;

use sluice_manifest::{Error, Result};

/// The settings for requests to object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreSettings {
    /// A try without progress for this long fails and is retried.
    pub timeout: Duration,
    /// The limit for one request, retries included.
    pub retry_for: Duration,
    /// The maximum number of requests in flight in this process.
    pub concurrency: usize,
    /// Whether requests are sent unsigned, for public buckets.
    pub anonymous: bool,
}

/// The upper limit of a timeout, in seconds.
const DAY: u64 = 86_400;
/// The upper limit of requests in flight.
const MOST_REQUESTS: u64 = 1024;

/// The delay before the first retry. It doubles with every retry, up to [`LONGEST_DELAY`]. Jitter
/// adds up to the same amount again, so that a thousand pods do not retry in the same moment.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(200);
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(10);

impl StoreSettings {
    /// Reads the settings from the environment.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the value of a variable cannot be parsed.
    pub(crate) fn from_environment() -> Result<Self> {
        Self::read(|name| std::env::var(name).ok()).map_err(Error::usage)
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number =
            |name: &str, default: u64, most: u64| match variable(name).filter(|v| !v.is_empty()) {
                None => Ok(default),
                Some(text) => match text.parse() {
                    Ok(number) if (1..=most).contains(&number) => Ok(number),
                    _ => Err(format!(
                        "{name}={text:?}: expected a number from 1 to {most}"
                    )),
                },
            };
        let flag = |name: &str| match variable(name).as_deref() {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(text) => Err(format!("{name}={text:?} is neither true nor false")),
        };
        Ok(Self {
            timeout: Duration::from_secs(number("SLUICE_STORE_TIMEOUT", 30, DAY)?),
            retry_for: Duration::from_secs(number("SLUICE_STORE_RETRY_FOR", 120, DAY)?),
            concurrency: number("SLUICE_STORE_CONCURRENCY", 32, MOST_REQUESTS)? as usize,
            anonymous: flag("SLUICE_STORE_ANONYMOUS")?,
        })
    }

    /// Returns the number of retries whose delays fit into [`retry_for`](Self::retry_for).
    pub(crate) fn retries(&self) -> usize {
        let mut spent = Duration::ZERO;
        let mut delay = FIRST_DELAY;
        let mut retries = 0;
        loop {
            // Counts the largest possible jitter, so that the last error is the store's and not the
            // deadline's.
            spent += delay * 2;
            if spent >= self.retry_for {
                return retries;
            }
            retries += 1;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_heard_and_nonsense_refused() {
        let with = |name: &'static str, value: &'static str| {
            StoreSettings::read(move |asked| (asked == name).then(|| value.to_owned()))
        };
        let default = StoreSettings::read(|_| None).unwrap();
        assert_eq!((default.timeout.as_secs(), default.retries()), (30, 10));
        let hasty = with("SLUICE_STORE_RETRY_FOR", "5").unwrap();
        assert_eq!((hasty.retry_for.as_secs(), hasty.retries()), (5, 3));
        assert!(with("SLUICE_STORE_ANONYMOUS", "true").unwrap().anonymous);
        for (name, value) in [
            ("SLUICE_STORE_TIMEOUT", "0"),
            ("SLUICE_STORE_RETRY_FOR", "18446744073709551615"),
            ("SLUICE_STORE_CONCURRENCY", "100000"),
            ("SLUICE_STORE_CONCURRENCY", "many"),
            ("SLUICE_STORE_ANONYMOUS", "perhaps"),
        ] {
            let refused = with(name, value).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
    }
}
