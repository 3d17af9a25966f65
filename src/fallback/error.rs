use std::{error::Error, fmt, time::Duration};

use super::Attempts;
use crate::BoxError;

/// Why a [`Fallback`](super::Fallback) has no answer.
///
/// It is no [`std::error::Error`] itself, so that it can convert into [`BoxError`] for every `E`
/// that does, [`BoxError`] included. There each case is boxed as what it is: [`Failed`], whose
/// source is the last error, or [`Unavailable`].
#[derive(Debug)]
pub enum FallbackError<E> {
    /// The last link that was asked failed, and this is its error.
    Failed {
        /// The last error.
        error: E,
        /// What became of each link.
        attempts: Attempts,
    },
    /// No link was available, so none was called.
    Unavailable(Unavailable),
}

/// No link was available, so none was called.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Unavailable {
    /// The shortest of the waits that the links' probes know of.
    pub retry_after: Option<Duration>,
    /// Why each link was passed over.
    pub attempts: Attempts,
}

/// [`FallbackError::Failed`] as it stands in a [`BoxError`]; its source is the last error.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failed {
    /// The last error.
    pub error: BoxError,
    /// What became of each link.
    pub attempts: Attempts,
}

impl<E> FallbackError<E> {
    /// What became of each link.
    pub fn attempts(&self) -> &Attempts {
        match self {
            Self::Failed { attempts, .. } => attempts,
            Self::Unavailable(unavailable) => &unavailable.attempts,
        }
    }

    /// How long until a link is available again; `None` if that isn't known, or a link was asked.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed { .. } => None,
            Self::Unavailable(unavailable) => unavailable.retry_after,
        }
    }

    /// The last error, if a link gave one.
    pub fn error(&self) -> Option<&E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::Unavailable(_) => None,
        }
    }

    /// The last error by value, or the news that no link was available.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if there is no such error.
    pub fn into_error(self) -> Result<E, Unavailable> {
        match self {
            Self::Failed { error, .. } => Ok(error),
            Self::Unavailable(unavailable) => Err(unavailable),
        }
    }
}

/// So that a fallback and a service that is none go into one chain.
impl<E> From<E> for FallbackError<E> {
    fn from(error: E) -> Self {
        Self::Failed {
            error,
            attempts: Attempts::default(),
        }
    }
}

const FAILED: &str = "the last link to be asked failed";

impl<E> fmt::Display for FallbackError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { .. } => f.write_str(FAILED),
            Self::Unavailable(unavailable) => unavailable.fmt(f),
        }
    }
}

impl<E: Into<BoxError>> From<FallbackError<E>> for BoxError {
    fn from(error: FallbackError<E>) -> Self {
        match error {
            FallbackError::Failed { error, attempts } => Box::new(Failed {
                error: error.into(),
                attempts,
            }),
            FallbackError::Unavailable(unavailable) => Box::new(unavailable),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no link is available")?;
        match self.retry_after {
            Some(wait) => write!(f, ", retry in {wait:?}"),
            None => Ok(()),
        }
    }
}

impl Error for Unavailable {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FAILED)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}
