use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{
    AnyError, Attempts, ByClone, Chain, Fallback, Link, NoProbe, NoRecord, Probe, service::Settings,
};
#[cfg(feature = "http")]
use super::{HttpFailures, InExtensions};

/// Gives the service it wraps a backup: [`Fallback`] as a [`Layer`].
///
/// `B` is the backup's [`Link`] and `Q` the probe of the wrapped service; the others are those of
/// [`Fallback`].
#[derive(Clone)]
pub struct FallbackLayer<B, Q = NoProbe, P = AnyError, R = NoRecord, C = ByClone> {
    backup: B,
    probe: Q,
    settings: Settings<P, R, C>,
}

impl<B> FallbackLayer<Link<B>> {
    /// Falls back on this service, which is known by its readiness alone.
    pub fn new(backup: B) -> Self {
        Self::from_link(Link::new(backup))
    }
}

impl<B, P> FallbackLayer<Link<B, P>> {
    /// Falls back on this link, which may bring a probe or be marked as degraded.
    pub fn from_link(backup: Link<B, P>) -> Self {
        Self {
            backup,
            probe: NoProbe,
            settings: Settings::default(),
        }
    }
}

impl<B, Q, P, R, C> FallbackLayer<B, Q, P, R, C> {
    fn with_settings<P2, R2, C2>(
        backup: B,
        probe: Q,
        settings: Settings<P2, R2, C2>,
    ) -> FallbackLayer<B, Q, P2, R2, C2> {
        FallbackLayer {
            backup,
            probe,
            settings,
        }
    }

    /// A probe of the availability of the wrapped service. Default: [`NoProbe`].
    pub fn probe<Q2: Probe>(self, probe: Q2) -> FallbackLayer<B, Q2, P, R, C> {
        FallbackLayer {
            backup: self.backup,
            probe,
            settings: self.settings,
        }
    }

    /// As [`Fallback::patience`].
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// As [`Fallback::fail_fast`].
    #[must_use]
    pub fn fail_fast(mut self) -> Self {
        self.settings.fail_fast = true;
        self
    }

    /// As [`Fallback::policy`].
    pub fn policy<P2>(self, policy: P2) -> FallbackLayer<B, Q, P2, R, C> {
        Self::with_settings(self.backup, self.probe, self.settings.policy(policy))
    }

    /// As [`Fallback::record`].
    pub fn record<Res, F>(self, hook: F) -> FallbackLayer<B, Q, P, F, C>
    where
        F: Fn(&Attempts, &mut Res),
    {
        Self::with_settings(self.backup, self.probe, self.settings.record(hook))
    }

    /// As [`Fallback::clone_request`].
    pub fn clone_request<Req, F>(self, hook: F) -> FallbackLayer<B, Q, P, R, F>
    where
        F: Fn(&Req) -> Option<Req>,
    {
        let settings = self.settings.clone_request(hook);
        Self::with_settings(self.backup, self.probe, settings)
    }

    /// As [`Fallback::http`].
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn http(self) -> FallbackLayer<B, Q, HttpFailures, InExtensions, C> {
        let settings = self.settings.policy(HttpFailures).record(InExtensions);
        Self::with_settings(self.backup, self.probe, settings)
    }
}

impl<S, B, Q, P, R, C> Layer<S> for FallbackLayer<B, Q, P, R, C>
where
    B: Clone,
    Q: Probe,
    P: Clone,
    R: Clone,
    C: Clone,
{
    type Service = Fallback<Chain<Link<S, Q>, B>, P, R, C>;

    fn layer(&self, primary: S) -> Self::Service {
        let primary = Link::new(primary).probe(self.probe.clone());
        let links = Chain::new(primary, self.backup.clone());
        Fallback::with_settings(links, self.settings.clone())
    }
}

impl<B: fmt::Debug, Q, P, R, C> fmt::Debug for FallbackLayer<B, Q, P, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer")
            .field("backup", &self.backup)
            .field("patience", &self.settings.patience)
            .field("fail_fast", &self.settings.fail_fast)
            .finish_non_exhaustive()
    }
}
