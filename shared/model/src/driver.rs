//! NVIDIA's driver: its version, and the GPUs that this process sees.
//!
//! The driver numbers GPUs as CUDA does, after `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`. In a
//! container `/dev/nvidia3` may be GPU 0.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::mem::ManuallyDrop;

use libloading::{Library, Symbol};
use serde::Serialize;

/// The driver's library.
pub(crate) const LIBRARY: &str = "libcuda.so.1";

/// NVIDIA's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// The newest version of CUDA that it runs, such as 13.0. It runs older ones, and later ones of the
    /// same major version.
    pub cuda: String,
    /// The GPUs that this process sees, by number.
    pub gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number in `cuda:N`.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
}

impl Driver {
    /// Returns the major version of CUDA that it runs.
    pub(crate) fn cuda_major(&self) -> Option<u32> {
        self.cuda.split('.').next()?.parse().ok()
    }
}

/// Why the driver cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoDriver {
    /// Its library is not there.
    Missing,
    /// It refused a call, with this code of CUDA.
    Refused(&'static str, c_int),
}

/// Asks the driver.
pub(crate) fn driver() -> Result<Driver, NoDriver> {
    Calls::load(LIBRARY).ok_or(NoDriver::Missing)?.driver()
}

/// The calls of the driver that are used. They take no GPU: a context would.
struct Calls {
    // The library stays loaded: the provider uses it, too.
    _library: ManuallyDrop<Library>,
    init: unsafe extern "C" fn(c_uint) -> c_int,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
}

#[expect(unsafe_code, reason = "the driver has a C interface only")]
impl Calls {
    fn load(library: &str) -> Option<Self> {
        // SAFETY: the driver's library does nothing when it is loaded, and its calls have had these
        // types since CUDA 3.2.
        unsafe {
            let library = ManuallyDrop::new(Library::new(library).ok()?);
            Some(Self {
                init: *symbol(&library, "cuInit")?,
                version: *symbol(&library, "cuDriverGetVersion")?,
                count: *symbol(&library, "cuDeviceGetCount")?,
                device: *symbol(&library, "cuDeviceGet")?,
                name: *symbol(&library, "cuDeviceGetName")?,
                memory: *symbol(&library, "cuDeviceTotalMem_v2")?,
                _library: library,
            })
        }
    }

    fn driver(&self) -> Result<Driver, NoDriver> {
        let (mut version, mut count) = (0, 0);
        // SAFETY: each call writes one number to the given address.
        unsafe {
            called("cuInit", (self.init)(0))?;
            called("cuDriverGetVersion", (self.version)(&raw mut version))?;
            called("cuDeviceGetCount", (self.count)(&raw mut count))?;
        }
        let gpus = (0..count).map(|number| self.gpu(number));
        Ok(Driver {
            cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
            gpus: gpus.collect::<Result<_, _>>()?,
        })
    }

    fn gpu(&self, number: c_int) -> Result<Gpu, NoDriver> {
        let (mut device, mut memory) = (0, 0);
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: the calls write one number, at most 255 characters and a zero, and one number.
        let name = unsafe {
            called("cuDeviceGet", (self.device)(&raw mut device, number))?;
            let length = name.len() as c_int - 1;
            called(
                "cuDeviceGetName",
                (self.name)(name.as_mut_ptr(), length, device),
            )?;
            called("cuDeviceTotalMem", (self.memory)(&raw mut memory, device))?;
            CStr::from_ptr(name.as_ptr())
        };
        Ok(Gpu {
            number: number.unsigned_abs(),
            name: name.to_string_lossy().into_owned(),
            memory: memory as u64,
        })
    }
}

/// # Safety
/// The symbol has this type.
#[expect(unsafe_code, reason = "the driver has a C interface only")]
unsafe fn symbol<'l, T>(library: &'l Library, name: &str) -> Option<Symbol<'l, T>> {
    // SAFETY: as of this function.
    unsafe { library.get(name.as_bytes()) }.ok()
}

fn called(call: &'static str, code: c_int) -> Result<(), NoDriver> {
    if code == 0 {
        return Ok(());
    }
    Err(NoDriver::Refused(call, code))
}
