//! The words of a command line, taken one after the other.

use std::{collections::VecDeque, str::FromStr, time::Duration};

/// What is left of the command line.
pub(crate) struct Arguments(VecDeque<String>);

impl Arguments {
    /// Those of this process, without its name.
    pub(crate) fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// The next word, which must be there.
    pub(crate) fn word(&mut self, what: &str) -> Result<String, String> {
        self.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// The value of an option.
    pub(crate) fn value<T: FromStr>(&mut self, option: &str) -> Result<T, String> {
        let value = self.word(&format!("the value of {option}"))?;
        value.parse().map_err(|_| format!("{option}: not understood: {value}"))
    }

    /// The value of an option, in milliseconds.
    pub(crate) fn milliseconds(&mut self, option: &str) -> Result<Duration, String> {
        self.value(option).map(Duration::from_millis)
    }
}

/// The refusal of an option that a command does not have.
pub(crate) fn unknown(option: &str) -> String {
    format!("unknown option {option}")
}
