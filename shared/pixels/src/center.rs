//! Centred crops. The libraries round an odd number of surplus or missing pixels differently.

use serde::{Deserialize, Serialize};

/// The library whose centred crop is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Center {
    /// transformers' processors of Pillow images: half an odd surplus is rounded down, half an odd
    /// padding up.
    #[default]
    Transformers,
    /// transformers' fast processors: both are rounded down.
    TransformersFast,
    /// torchvision's `CenterCrop`: half a surplus is rounded to the even number, half a padding
    /// down.
    Torchvision,
}

/// A centred crop along one axis.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The start of the crop in the image.
    pub start: u64,
    /// The length of the image that the crop takes.
    pub length: u32,
    /// The number of zeros before it.
    pub padding: u32,
}

impl Center {
    pub(crate) fn span(self, full: u64, crop: u32) -> Span {
        match full.checked_sub(crop.into()) {
            Some(surplus) => Span {
                start: self.start(surplus),
                length: crop,
                padding: 0,
            },
            None => Span {
                start: 0,
                length: full as u32,
                padding: self.padding(crop - full as u32),
            },
        }
    }

    fn start(self, surplus: u64) -> u64 {
        let half = surplus / 2;
        let is_rounded_up = self == Self::Torchvision && surplus % 2 == 1 && half % 2 == 1;
        half + u64::from(is_rounded_up)
    }

    fn padding(self, lack: u32) -> u32 {
        match self {
            Self::Transformers => lack.div_ceil(2),
            Self::TransformersFast | Self::Torchvision => lack / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_rounds_its_own_way() {
        let start = |center: Center| [8, 9, 11, 13].map(|full| center.span(full, 8).start);
        assert_eq!(start(Center::Transformers), [0, 0, 1, 2]);
        assert_eq!(start(Center::TransformersFast), [0, 0, 1, 2]);
        assert_eq!(start(Center::Torchvision), [0, 0, 2, 2]);
        let padding = |center: Center| [7, 5, 4].map(|full| center.span(full, 8).padding);
        assert_eq!(padding(Center::Transformers), [1, 2, 2]);
        assert_eq!(padding(Center::TransformersFast), [0, 1, 2]);
        assert_eq!(padding(Center::Torchvision), [0, 1, 2]);
    }
}
