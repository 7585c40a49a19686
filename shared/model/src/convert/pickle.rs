//! The pickles of PyTorch's state dicts.
//!
//! A pickle is a program for a stack machine, and `pickle.load` runs any function that it names. This
//! machine has no functions: it knows the few names that a state dict needs, refuses every other, and
//! keeps of dictionaries what has a name, which is the tensors.

use std::collections::HashMap;
use std::rc::Rc;

/// Instructions that are run at most; a state dict has some tens for each tensor.
const MOST: usize = 10_000_000;
/// Tuples inside of each other, at most.
const DEPTH: usize = 16;

/// A part of a storage as a strided array. Its numbers are elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Numbers that are stored on their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// `FloatStorage` and so on.
    pub kind: Rc<str>,
    pub key: Rc<str>,
    pub count: usize,
}

/// What an instruction gives.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing of interest: none, a truth value, a float, bytes.
    Other,
    Integer(i64),
    Text(Rc<str>),
    /// A function or class, as `module.name`.
    Name(Rc<str>),
    Tuple(Rc<Vec<Value>>, usize),
    /// The texts of a list.
    List(Vec<Rc<str>>),
    /// The tensors of a dictionary, by name.
    Dictionary(Vec<(Rc<str>, View)>),
    Storage(Storage),
    View(View),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value>,
}

/// Runs the pickle at the start of `bytes`. Returns what it gives, and its length.
pub(super) fn load(bytes: &[u8]) -> Result<(Value, usize), String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MOST {
        if machine.step()? {
            return Ok((machine.pop()?, machine.at));
        }
    }
    Err("its pickle has too many instructions".to_owned())
}

const BROKEN: &str = "its pickle is broken";

impl<'a> Machine<'a> {
    /// Runs an instruction. Returns whether it was the last.
    fn step(&mut self) -> Result<bool, String> {
        let code = self.take(1)?[0];
        match code {
            b'.' => return Ok(true),
            // The protocol, and frames.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Other);
            }
            b'K' | b'M' | b'J' | 0x8a => self.integer(code)?,
            b'X' | 0x8c => self.text(code)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(module, name)?;
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(code)?,
            b')' | b't' | 0x85..=0x87 => self.tuple(code)?,
            b']' => self.stack.push(Value::List(Vec::new())),
            b'}' => self.stack.push(Value::Dictionary(Vec::new())),
            b'a' | b'e' | b's' | b'u' => self.put(code)?,
            b'Q' => {
                let identity = self.pop()?;
                self.stack.push(Value::Storage(storage(&identity)?));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.stack.push(call(&function, &arguments)?);
            }
            // The state of an object, here the attributes of an OrderedDict.
            b'b' => drop(self.pop()?),
            code => {
                return Err(format!(
                    "its pickle has the instruction {code:#04x}, which no state dict needs"
                ));
            }
        }
        Ok(false)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or(BROKEN)?;
        let taken = self.bytes.get(self.at..end).ok_or(BROKEN)?;
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of some bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        let digits = self.take(bytes)?.iter().rev();
        Ok(digits.fold(0, |number, &digit| number << 8 | usize::from(digit)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&b| b == b'\n').ok_or(BROKEN)?;
        let line = std::str::from_utf8(&rest[..length]).map_err(|_| BROKEN)?;
        self.at += length + 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() > floor {
            self.stack.pop().ok_or_else(|| BROKEN.to_owned())
        } else {
            Err(BROKEN.to_owned())
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or(BROKEN)?;
        Ok(self.stack.split_off(mark))
    }

    fn integer(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as u32 as i32),
            _ => {
                let length = self.number(1)?;
                let digits = self.take(length)?;
                // The longer ones mark a format; nothing counts so far.
                let sum = digits
                    .iter()
                    .rev()
                    .fold(0_u64, |n, &d| n << 8 | u64::from(d));
                i64::try_from(sum).unwrap_or(i64::MAX)
            }
        };
        self.stack.push(Value::Integer(value));
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<(), String> {
        let length = self.number(if code == b'X' { 4 } else { 1 })?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| BROKEN)?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        let is_known = match full.as_str() {
            ORDERED | TENSOR | PARAMETER => true,
            _ => module == "torch" && name.ends_with("Storage"),
        };
        if !is_known {
            return Err(format!(
                "its pickle names {full:?}, which no state dict needs"
            ));
        }
        self.stack.push(Value::Name(full.into()));
        Ok(())
    }

    fn memo(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'h' | b'j' => {
                let key = self.number(if code == b'h' { 1 } else { 4 })?;
                let value = self.memo.get(&key).ok_or(BROKEN)?.clone();
                self.stack.push(value);
            }
            _ => {
                let key = match code {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                // What collects is empty when it is remembered, and asked for by nobody.
                let value = match self.stack.last().ok_or(BROKEN)? {
                    Value::List(_) | Value::Dictionary(_) => Value::Other,
                    value => value.clone(),
                };
                self.memo.insert(key, value);
            }
        }
        Ok(())
    }

    fn tuple(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b')' => Vec::new(),
            b't' => self.since_mark()?,
            code => {
                let mut items = Vec::new();
                for _ in 0x84..code {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        let depth = items.iter().map(|item| match item {
            Value::Tuple(_, depth) => *depth,
            _ => 0,
        });
        let depth = 1 + depth.max().unwrap_or(0);
        if depth > DEPTH {
            return Err("its pickle has too many tuples inside of each other".to_owned());
        }
        self.stack.push(Value::Tuple(Rc::new(items), depth));
        Ok(())
    }

    /// Puts items into the list or dictionary below them.
    fn put(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        match self.stack.last_mut() {
            Some(Value::List(list)) if matches!(code, b'a' | b'e') => {
                let texts = items.into_iter().filter_map(|item| match item {
                    Value::Text(text) => Some(text),
                    _ => None,
                });
                list.extend(texts);
            }
            Some(Value::Dictionary(entries)) if matches!(code, b's' | b'u') => {
                for pair in items.chunks_exact(2) {
                    if let [Value::Text(name), Value::View(view)] = pair {
                        entries.push((name.clone(), view.clone()));
                    }
                }
            }
            // A collection that the memo gave back.
            Some(Value::Other) => {}
            _ => return Err(BROKEN.to_owned()),
        }
        Ok(())
    }
}

const ORDERED: &str = "collections.OrderedDict";
const TENSOR: &str = "torch._utils._rebuild_tensor_v2";
const PARAMETER: &str = "torch._utils._rebuild_parameter";

/// `('storage', type, key, device, count, …)`.
fn storage(identity: &Value) -> Result<Storage, String> {
    if let Value::Tuple(items, _) = identity
        && let [
            Value::Text(what),
            Value::Name(kind),
            Value::Text(key),
            _,
            count,
            ..,
        ] = &items[..]
        && **what == *"storage"
    {
        return Ok(Storage {
            kind: kind.trim_start_matches("torch.").into(),
            key: key.clone(),
            count: size(count)?,
        });
    }
    Err(BROKEN.to_owned())
}

fn call(function: &Value, arguments: &Value) -> Result<Value, String> {
    let (Value::Name(name), Value::Tuple(items, _)) = (function, arguments) else {
        return Err(BROKEN.to_owned());
    };
    match (&**name, &items[..]) {
        (ORDERED, _) => Ok(Value::Dictionary(Vec::new())),
        (PARAMETER, [data, ..]) => Ok(data.clone()),
        (TENSOR, [Value::Storage(storage), offset, shape, strides, ..]) => Ok(Value::View(View {
            storage: storage.clone(),
            offset: size(offset)?,
            shape: sizes(shape)?,
            strides: sizes(strides)?,
        })),
        _ => Err(BROKEN.to_owned()),
    }
}

fn size(value: &Value) -> Result<usize, String> {
    match value {
        Value::Integer(value) => usize::try_from(*value).map_err(|_| BROKEN.to_owned()),
        _ => Err(BROKEN.to_owned()),
    }
}

fn sizes(value: &Value) -> Result<Vec<usize>, String> {
    match value {
        Value::Tuple(items, _) => items.iter().map(size).collect(),
        _ => Err(BROKEN.to_owned()),
    }
}
