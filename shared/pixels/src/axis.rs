//! The weights of pixels when resizing along one axis.
//!
//! Computed in f64 and stored in fixed point, as in Pillow. For a small image, computing the
//! weights costs more than applying them (Lanczos needs two sines for each weight), so each thread
//! caches the most recent ones: photographs come in few sizes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// The number of fractional bits of a weight: 32, less 8 for the pixel and 2 for overshoot.
pub(crate) const PRECISION: u32 = 32 - 8 - 2;

/// The resampling filter. All but `nearest` antialias when shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The pixel with the nearest centre; no antialiasing.
    Nearest,
    /// The mean of the covered pixels.
    Box,
    /// Linear interpolation between the two nearest pixels along each axis.
    Bilinear,
    /// Keys' cubic with a = -0.5 (Pillow's value; OpenCV and torch tensors use -0.75).
    Bicubic,
    /// A windowed sinc over three lobes.
    Lanczos,
}

impl Filter {
    /// Returns half the width over which the filter is not zero, in pixels of the coarser grid.
    pub(crate) fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    pub(crate) fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let distance = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => {
                ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
            }
            Self::Bicubic if distance < 2.0 => {
                (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// The weights along one axis, for a window of the output.
pub(crate) struct Axis {
    /// For each output position: the first input position, and the number of input positions.
    spans: Vec<(usize, usize)>,
    /// Weights in fixed point, `taps` for each output position.
    weights: Vec<i32>,
    taps: usize,
    /// The start of the window, if input and output have the same size, so that no resampling is
    /// needed.
    pub(crate) identity: Option<usize>,
}

/// Everything that determines the weights of an axis: output positions `start..start + length` out
/// of `output`, from `input` positions, which are `size / by` rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AxisSpec {
    pub input: u32,
    pub size: u32,
    pub by: u32,
    pub output: u64,
    pub filter: Filter,
    pub start: u64,
    pub length: u32,
}

impl Axis {
    /// Returns the weights, from this thread's cache if it has them.
    pub(crate) fn for_spec(spec: AxisSpec) -> Rc<Self> {
        /// The number of axes in the cache. A photograph takes two for preprocessing and four for
        /// `read`.
        const KEPT: usize = 48;
        /// The maximum number of weights in a cached axis. Limits the cache to 48 times 64 KiB.
        const LARGEST: usize = 16 << 10;
        thread_local! {
            static LAST: RefCell<VecDeque<(AxisSpec, Rc<Axis>)>> = const { RefCell::new(VecDeque::new()) };
        }
        LAST.with_borrow_mut(|last| {
            if let Some(at) = last.iter().position(|(known, _)| *known == spec) {
                last.swap(0, at);
                return Rc::clone(&last[0].1);
            }
            let axis = Rc::new(Self::new(spec));
            if axis.weights.len() <= LARGEST {
                last.truncate(KEPT - 1);
                last.push_front((spec, Rc::clone(&axis)));
            }
            axis
        })
    }

    fn new(spec: AxisSpec) -> Self {
        let AxisSpec {
            input,
            size,
            by,
            output,
            filter,
            start,
            length,
        } = spec;
        let scale = f64::from(size) / f64::from(by) / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let taps = (support.ceil() as usize * 2 + 1).next_multiple_of(Self::STEP);
        let shrink = 1.0 / stretch;

        let mut spans = Vec::with_capacity(length as usize);
        let mut weights = vec![0; taps * length as usize];
        let mut exact = vec![0.0; taps];
        for (index, fixed) in weights.chunks_exact_mut(taps).enumerate() {
            let center = ((start + index as u64) as f64 + 0.5) * scale;
            // Casts to unsigned saturate at 0 and truncate, as in C.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input as usize);
            let count = end - first;
            let mut sum = 0.0;
            for (offset, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((first + offset) as f64 - center + 0.5) * shrink);
                sum += *weight;
            }
            for (fixed, weight) in fixed.iter_mut().zip(&exact[..count]) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                // `round` rounds halves away from zero, like adding or subtracting 0.5 and
                // truncating.
                *fixed = (weight * f64::from(1u32 << PRECISION)).round() as i32;
            }
            spans.push((first, count));
        }
        Self {
            spans,
            weights,
            taps,
            identity: (by == 1 && u64::from(input) == output).then_some(start as usize),
        }
    }

    /// The multiple to which [`Self::padded`] extends the weights.
    pub(crate) const STEP: usize = 16;

    /// Like [`Self::of`], with zeros after the weights up to a multiple of [`Self::STEP`].
    #[inline(always)]
    pub(crate) fn padded(&self, index: usize) -> (usize, &[i32]) {
        (
            self.spans[index].0,
            &self.weights[index * self.taps..][..self.taps],
        )
    }

    /// Returns an upper limit for the input positions after the last one that [`Self::padded`]
    /// covers.
    pub(crate) fn slack(&self) -> usize {
        self.taps
    }

    /// Returns the first input position for an output position, and the weights from there on.
    #[inline(always)]
    pub(crate) fn of(&self, index: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[index];
        (first, &self.weights[index * self.taps..][..count])
    }

    /// Returns the number of output positions.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns the range of input positions that any output position needs.
    pub(crate) fn needed(&self) -> std::ops::Range<usize> {
        let first = self.spans.iter().map(|&(first, _)| first).min();
        let end = self.spans.iter().map(|&(first, count)| first + count).max();
        first.unwrap_or(0)..end.unwrap_or(0)
    }
}
