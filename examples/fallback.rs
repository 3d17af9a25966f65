//! Two services behind circuit breakers, and an answer of one's own for when both are down.
//!
//! ```text
//! cargo run --example fallback
//! ```
//!
//! The circuit breakers are in the waiting mode: while a circuit is open, its service isn't ready.
//! That is all that `Fallback` needs to know to pass it over, without an attempt.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{
    BoxError, CircuitBreakerConfig, CircuitBreakerLayer, Fallback, fallback::Attempts,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Short times, so that you needn't wait. The defaults suit slow remote services.
    let config = CircuitBreakerConfig::builder()
        .failure_threshold(2)
        .reset_timeout(Duration::from_millis(500))
        .half_open_requests(1)
        .build()?;

    // A circuit is its layer's, so each service has a layer of its own.
    let primary = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(config.clone()))
        .service_fn(|city| forecast(city, &PRIMARY_IS_DOWN));
    let backup = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(config))
        .service_fn(|city| forecast(city, &BACKUP_IS_DOWN));
    // It can't fail, but the links of a chain need errors that convert into the first one's.
    let almanac = service_fn(async |city| {
        Ok::<_, io::Error>(Forecast::new(format!("{city} is mild in spring")))
    });

    let mut chain = Fallback::new(primary.clone())
        .or(backup)
        .or_degraded(almanac)
        .record(|attempts: &Attempts, forecast: &mut Forecast| {
            forecast.attempts = attempts.clone();
        });

    println!("# all is well");
    show(chain.ready().await?.call("Bergen").await?);

    println!("# the primary goes down: it fails twice, then its circuit is open");
    PRIMARY_IS_DOWN.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        show(chain.ready().await?.call("Bergen").await?);
    }

    println!("# the backup goes down as well");
    BACKUP_IS_DOWN.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        show(chain.ready().await?.call("Bergen").await?);
    }

    println!("# the primary is up again, and its circuit lets a probe through");
    PRIMARY_IS_DOWN.store(false, Ordering::Relaxed);
    // In this mode, a service behind an open circuit is ready once it may be tried again.
    primary.clone().ready().await?;
    show(chain.ready().await?.call("Bergen").await?);
    Ok(())
}

struct Forecast {
    text: String,
    /// How it came about.
    attempts: Attempts,
}

impl Forecast {
    fn new(text: String) -> Self {
        Self {
            text,
            attempts: Attempts::default(),
        }
    }
}

static PRIMARY_IS_DOWN: AtomicBool = AtomicBool::new(false);
static BACKUP_IS_DOWN: AtomicBool = AtomicBool::new(false);

/// The remote service, as it were.
async fn forecast(city: &'static str, is_down: &AtomicBool) -> io::Result<Forecast> {
    if is_down.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(Forecast::new(format!("{city}: 17 degrees, rain at noon")))
}

/// Prints the answer, and what became of each link that was looked at for it.
fn show(forecast: Forecast) {
    let degraded = if forecast.attempts.degraded() {
        " (degraded)"
    } else {
        ""
    };
    println!("{}{degraded}", forecast.text);
    for attempt in &forecast.attempts {
        let link = ["primary", "backup", "almanac"][attempt.link];
        match &attempt.reason {
            Some(reason) => println!("    {link}: {:?}, {reason}", attempt.outcome),
            None => println!("    {link}: {:?}", attempt.outcome),
        }
    }
}
