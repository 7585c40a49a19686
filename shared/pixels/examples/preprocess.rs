//! Preprocesses every JPEG of some tar shards for CLIP, and reports how long it took.
//!
//! `preprocess THREADS SHARD...` prints one line of JSON: the number of images, and the wall and
//! CPU seconds of the work alone (the files are read before). If the variable EXACT is set, large
//! photos are decoded in full size. If the variable CHECKSUM is set, the line also has a checksum
//! of all tensors, which costs time.

#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a tool to measure with: local files, one line on stdout"
)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use sluice_pixels::{Fidelity, Limits, Preprocess};

const CLIP: &str = r#"
    resize = { shortest-edge = 224 }
    filter = "bicubic"
    crop = { width = 224, height = 224 }
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
"#;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .expect("THREADS SHARD...");
    let files: Vec<Vec<u8>> = arguments.flat_map(|shard| jpegs(&shard)).collect();
    let spec: Preprocess = toml::from_str(CLIP).expect("a valid spec");

    let fidelity = match std::env::var_os("EXACT") {
        Some(_) => Fidelity::Exact,
        None => Fidelity::Approximate,
    };
    let spoken = std::env::var_os("CHECKSUM").is_some();
    let (next, checksum) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (started, cpu) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tensor = vec![0.0; spec.tensor_len()];
                while let Some(bytes) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    spec.tensor_of_file(
                        bytes,
                        &Limits::default(),
                        &mut |_| {},
                        fidelity,
                        &mut tensor,
                    )
                    .expect("a sound photo");
                    if spoken {
                        checksum.fetch_add(sum(&tensor), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!(
        "{{\"images\": {}, \"seconds\": {:.6}, \"cpu\": {:.6}, \"checksum\": {}}}",
        files.len(),
        started.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        checksum.into_inner()
    );
}

fn jpegs(shard: &str) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(shard).expect("a shard");
    let mut found = Vec::new();
    for entry in tar::Archive::new(std::io::BufReader::new(file))
        .entries()
        .expect("a tar")
    {
        let mut entry = entry.expect("a tar");
        if entry.path_bytes().ends_with(b".jpg") {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).expect("a tar");
            found.push(bytes);
        }
    }
    found
}

/// Returns a checksum that depends on every bit of every number and on their order.
fn sum(tensor: &[f32]) -> u64 {
    let places = (1u64..).step_by(2);
    tensor.iter().zip(places).fold(0, |sum, (value, place)| {
        sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(place))
    })
}

/// Returns the CPU time of this process so far, in user and kernel mode.
#[expect(unsafe_code, reason = "getrusage has no safe counterpart")]
fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct that it is given, for which zeros are legal values.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
