//! Vectors as signed bytes.
//!
//! A vector x becomes codes q in -127..=127 and a scale s, with x ≈ o + s q for
//! an origin o that all vectors share (the mean of the data, so that what all
//! have in common costs no precision; or 0). `bytes.rs` multiplies them.
//!
//! # Error
//! With x' = x - o and its rounding x̂ = s q, the product that is left out is
//! |x'·y' - x̂·ŷ| = |(x' - x̂)·y' + x̂·(y' - ŷ)| <= |x' - x̂| |y'| + |x̂| |y' - ŷ|
//! by Cauchy and Schwarz. All four lengths are known when a vector is coded, so
//! the bound is valid for any data; for unit vectors of a few hundred normal
//! values it is about 0.015. [`Code::error`] and [`Code::length`] are rounded
//! up, and include what is lost by `f32` arithmetic.
//!
//! # Heads
//! The product of the first quarter of the codes alone is a coarser estimate, at
//! a quarter of the cost: what the rest adds to a product is at most the product
//! of the rests' lengths, by Cauchy and Schwarz again.

use multiversion::multiversion;

use crate::products::dot;

/// Codes in a word.
pub(crate) const WORD: usize = 4;

/// Rounding of `f32` arithmetic on a product of two lengths, generously: an
/// estimate passes through fewer than ten roundings of 2^-24 each.
const ROUNDING: f32 = 1e-6;

/// What is known about a coded vector x, except its codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    /// s: what a step of a code is worth. Not-a-number where x is not finite, so that all its estimates are none.
    pub scale: f32,
    /// At least |x - o - s q|.
    pub error: f32,
    /// At least |x - o| and |s q|.
    pub length: f32,
    /// o·x, which turns products of x - o back to ones of x.
    pub offset: f32,
    /// Sum of the codes.
    pub sum: i32,
    /// Sum of the codes of the head, the first quarter of the values.
    pub head_sum: i32,
    /// At least the length of x - o without the head.
    pub rest: f32,
}

/// Turns vectors into codes.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    /// o.
    origin: Vec<f32>,
    /// |o|².
    pub square: f32,
}

impl Coder {
    pub(crate) fn new(origin: Vec<f32>) -> Self {
        let square = dot(&origin, &origin) as f32;
        Self { origin, square }
    }

    pub(crate) fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Words of a coded vector.
    pub(crate) fn words(&self) -> usize {
        self.dim().div_ceil(WORD)
    }

    /// Words of the head of a coded vector.
    pub(crate) fn head_words(&self) -> usize {
        head(self.dim()) * LANES / WORD
    }

    /// Codes `vector` into `words`.
    pub(crate) fn code(&self, vector: &[f32], words: &mut [i32]) -> Code {
        let code = code(vector, &self.origin, words);
        let offset = if self.square == 0.0 {
            0.0
        } else {
            dot(&self.origin, vector) as f32
        };
        Code { offset, ..code }
    }

    /// The part of the rounding that the offsets of a product bring in.
    pub(crate) fn rounding(&self, left: f32, right: f32) -> f32 {
        ROUNDING * (left.abs() + right.abs() + self.square)
    }
}

/// Values that are coded at a time: a register of AVX-512.
const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn code(vector: &[f32], origin: &[f32], words: &mut [i32]) -> Code {
    let (xs, x_rest) = vector.as_chunks::<LANES>();
    let (os, o_rest) = origin.as_chunks::<LANES>();
    let (x_rest, o_rest) = (padded(x_rest), padded(o_rest));

    let head = head(vector.len());
    let mut sizes = Sizes::default();
    for (x, o) in xs[head..].iter().zip(&os[head..]) {
        sizes.add(x, o);
    }
    sizes.add(&x_rest, &o_rest);
    let rest = rounded_up(&sizes.squares);
    for (x, o) in xs[..head].iter().zip(&os[..head]) {
        sizes.add(x, o);
    }
    let length = rounded_up(&sizes.squares);
    words.fill(0);
    if !length.is_finite() {
        return Code::zero();
    }
    let mut most = 0.0;
    for size in sizes.most {
        most = if size > most { size } else { most };
    }

    let mut rounding = Rounding::to(most / 127.0);
    let (quads, words_rest) = words.as_chunks_mut::<{ LANES / WORD }>();
    let mut head_sum = 0;
    for (index, ((x, o), words)) in xs.iter().zip(os).zip(&mut *quads).enumerate() {
        if index == head {
            head_sum = rounding.sums.iter().sum();
        }
        *words = rounding.codes(x, o);
    }
    let last = rounding.codes(&x_rest, &o_rest);
    if quads.len() > xs.len() {
        quads[xs.len()] = last; // the rest fills a register but for less than a word
    }
    words_rest.copy_from_slice(&last[..words_rest.len()]);
    let error = rounded_up(&rounding.errors);
    Code {
        scale: rounding.scale,
        error: error + ROUNDING * length,
        length: length + error,
        offset: 0.0,
        sum: rounding.sums.iter().sum(),
        head_sum,
        rest,
    }
}

/// Registers of values in the head of a vector.
fn head(dim: usize) -> usize {
    dim / LANES / 4
}

/// The last values of a vector, and zeros.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    values[..rest.len()].copy_from_slice(rest);
    values
}

// The loops over lanes below become vector code: no closures, which would not.

/// Of x - o: the greatest values, and the sums of the squares.
#[derive(Default)]
struct Sizes {
    most: [f32; LANES],
    squares: [f32; LANES],
}

impl Sizes {
    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], o: &[f32; LANES]) {
        for lane in 0..LANES {
            let centred = x[lane] - o[lane];
            let (size, most) = (centred.abs(), self.most[lane]);
            self.most[lane] = if size > most { size } else { most };
            self.squares[lane] += centred * centred;
        }
    }
}

/// What rounding to multiples of `scale` leaves.
struct Rounding {
    scale: f32,
    inverse: f32,
    /// Sums of (x - o - s q)².
    errors: [f32; LANES],
    /// Sums of q.
    sums: [i32; LANES],
}

impl Rounding {
    #[inline(always)]
    fn to(scale: f32) -> Self {
        Self {
            scale,
            inverse: if scale > 1e-30 { 1.0 / scale } else { 0.0 },
            errors: [0.0; LANES],
            sums: [0; LANES],
        }
    }

    #[inline(always)]
    fn codes(&mut self, x: &[f32; LANES], o: &[f32; LANES]) -> [i32; LANES / WORD] {
        let mut bytes = [0_u8; LANES];
        for lane in 0..LANES {
            let centred = x[lane] - o[lane];
            let q = (centred * self.inverse).round_ties_even();
            let q = q.clamp(-127.0, 127.0);
            let error = centred - q * self.scale;
            self.errors[lane] += error * error;
            #[expect(unsafe_code, reason = "a checked conversion is many times slower")]
            // SAFETY: q is in -127..=127. It is a number, as x - o is finite (the
            // caller returns early where it is not) and so is the inverse.
            let q: i32 = unsafe { q.to_int_unchecked() };
            self.sums[lane] += q;
            bytes[lane] = q as u8; // two's complement
        }
        let mut words = [0; LANES / WORD];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
            *word = i32::from_ne_bytes(*bytes);
        }
        words
    }
}

/// The root of a sum of squares, or a little more: also what underflows.
#[inline(always)]
fn rounded_up(squares: &[f32; LANES]) -> f32 {
    squares.iter().sum::<f32>().sqrt() * 1.001 + 1e-17
}

impl Code {
    /// Of what is not finite: all its estimates are not-a-number.
    fn zero() -> Self {
        Self {
            scale: f32::NAN,
            error: f32::NAN,
            length: f32::NAN,
            offset: f32::NAN,
            sum: 0,
            head_sum: 0,
            rest: f32::NAN,
        }
    }
}
