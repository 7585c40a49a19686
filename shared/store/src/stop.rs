//! A signal ends a program even while a store does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// What an error says of a request that was given up because the program is to stop.
pub(crate) const MESSAGE: &str = "stopped by a signal";

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is under way may come to its end.
const GRACE: Duration = Duration::from_secs(5);

/// From now on requests to object stores are given up some seconds after this flag is set, with an
/// error of the class [`Stopped`](sluice_manifest::Class::Stopped). The first flag counts.
pub fn heed(stop: &Arc<AtomicBool>) {
    // A process has one flag; in tests the first caller's stays.
    let _ = STOP.set(stop.clone());
}

/// Comes back when the program is to stop, and requests had their time.
pub(crate) async fn asked() {
    let Some(stop) = STOP.get() else {
        return std::future::pending().await;
    };
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(GRACE).await;
}
