//! Groups the members of a shard into samples, in one pass and with one sample in memory.
//!
//! WebDataset's rule: consecutive members that share a key are one sample. Where WebDataset's own
//! reader fails or merges samples, this reader separates and counts them:
//! - A member whose extension the sample already has, ignoring case, starts the next sample with
//!   that key.
//! - A key that returns after other keys is a separate sample with its own [`Sample::occurrence`].
//!
//! A member that cannot be part of a sample does not end the sample around it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};

use crate::archive::{Archive, Entry, EntryKind};
use crate::event::{
    Compression, Damage, DamageKind, Event, Member, MemberCounts, Missing, Sample, SampleProblem,
    ShardLimits, Skip, Skipped,
};
use crate::names::{has_extension, is_reserved, split_key, text, without_dot};
use crate::roles::IMAGE_EXTENSIONS;
use crate::source::Fault;

/// Reads a shard, plain or compressed, as a sequence of [`Event`]s.
///
/// An `Err` always comes from the underlying reader (storage, network), so a retry may help. It is
/// the last item. Damaged data is an [`Event::Damage`].
///
/// Every member is in exactly one [`Sample`] or [`Skipped`], or is the one inside which the shard
/// ends. [`counts`](Self::counts) returns the totals.
pub struct ShardReader<R: Read> {
    archive: Archive<R>,
    limits: ShardLimits,
    current: Option<Building>,
    /// The first member of the next sample, with its data unread. It is read after the finished
    /// sample was returned, so that two samples are never in memory.
    held: Option<Entry>,
    ids: Ids,
    images: ImageOffsets,
    events: VecDeque<Event>,
    failure: Option<io::Error>,
    counts: MemberCounts,
    done: bool,
}

struct Building {
    key: Vec<u8>,
    members: Vec<Member>,
    /// The members' extensions in lower case.
    extensions: HashSet<String>,
    buffered: u64,
    problem: Option<SampleProblem>,
}

/// The ids assigned in this shard, as hashes, with the last number used for each.
///
/// If two hashes collide, a key gets a number that it does not need. Two samples never get the same
/// id.
#[derive(Default)]
struct Ids(HashMap<u64, u32>);

impl Ids {
    fn occurrence(&mut self, key: &str) -> u32 {
        let hash = hash(key);
        let Some(&last) = self.0.get(&hash) else {
            self.0.insert(hash, 0);
            return 0;
        };
        let mut n = last;
        loop {
            n += 1;
            // The shard may also contain `key#n` as a literal key.
            let id = hash_of_id(key, n);
            if let std::collections::hash_map::Entry::Vacant(free) = self.0.entry(id) {
                free.insert(0);
                break;
            }
        }
        self.0.insert(hash, n);
        n
    }
}

/// The offset and size of each image in the shard, by the hash of its name. Hard links may refer to
/// them.
#[derive(Default)]
struct ImageOffsets(HashMap<u64, (u64, u64)>);

impl ImageOffsets {
    fn add(&mut self, entry: &Entry) {
        let name = without_dot(&entry.name);
        if entry.kind == EntryKind::File && is_image(name) {
            self.0.insert(hash(name), (entry.offset, entry.size));
        }
    }

    /// Gives a hard link to an image the offset and size of the image.
    fn resolve(&self, entry: &mut Entry) {
        let target = self.0.get(&hash(without_dot(&entry.target)));
        if let (EntryKind::HardLink, Some(&(offset, size))) = (entry.kind, target) {
            (entry.kind, entry.offset, entry.size) = (EntryKind::Linked, offset, size);
        }
    }
}

fn is_image(name: &[u8]) -> bool {
    let extension = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    let mut known = IMAGE_EXTENSIONS.iter();
    known.any(|known| extension.eq_ignore_ascii_case(known.as_bytes()))
}

fn hash<T: Hash + ?Sized>(id: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn hash_of_id(key: &str, n: u32) -> u64 {
    hash(&format!("{key}#{n}"))
}

impl<R: Read> ShardReader<R> {
    /// Starts reading a shard. The first block determines the compression.
    ///
    /// # Errors
    ///
    /// Returns the error of `reader` if the first block cannot be read, and zstd's error if its
    /// decoder cannot be created.
    pub fn new(reader: R, limits: ShardLimits) -> io::Result<Self> {
        Ok(Self {
            archive: Archive::new(reader, limits.clone())?,
            limits,
            current: None,
            held: None,
            ids: Ids::default(),
            images: ImageOffsets::default(),
            events: VecDeque::new(),
            failure: None,
            counts: MemberCounts::default(),
            done: false,
        })
    }

    /// Returns the compression of the shard.
    pub fn compression(&self) -> Compression {
        self.archive.compression()
    }

    /// Returns the counts so far. Complete once the iterator has ended.
    pub fn counts(&self) -> MemberCounts {
        self.counts
    }

    /// Reads one member and queues the resulting events.
    fn read_next(&mut self) -> Result<(), Fault> {
        if let Some(entry) = self.held.take() {
            return self.take_entry(entry);
        }
        match self.archive.next_entry() {
            Ok(Some(mut entry)) => {
                self.queue_notes();
                self.counts.members += 1;
                if self.archive.is_after_gap() {
                    self.note_problem(SampleProblem::DamageAfter);
                }
                self.images.resolve(&mut entry);
                self.images.add(&entry);
                self.take_entry(entry)
            }
            Ok(None) => {
                self.finish_sample();
                self.finish_shard(None);
                Ok(())
            }
            Err(Fault::Damage(damage)) => {
                if damage.kind != DamageKind::Gap && !self.archive.at_archive_end() {
                    self.note_problem(SampleProblem::DamageAfter);
                }
                self.finish_sample();
                self.finish_shard(Some(damage));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn take_entry(&mut self, entry: Entry) -> Result<(), Fault> {
        let (key, extension) = match classify(&entry) {
            Ok(parts) => parts,
            Err(why) => return self.skip_member(&entry, why),
        };
        let extension = text(extension);
        // WebDataset's reader converts extensions to lower case, and rejects a sample with a
        // repeated one.
        let ends_sample = self.current.as_ref().is_some_and(|current| {
            current.key != key || current.extensions.contains(&extension.to_lowercase())
        });
        if ends_sample {
            self.finish_sample();
            self.held = Some(entry);
            return Ok(());
        }
        self.take_member(&entry, key, extension)
    }

    /// Reads a member into the current sample, or starts one.
    fn take_member(&mut self, entry: &Entry, key: &[u8], extension: String) -> Result<(), Fault> {
        let limits = &self.limits;
        let current = self.current.get_or_insert_with(|| Building {
            key: key.to_vec(),
            members: Vec::new(),
            extensions: HashSet::new(),
            buffered: 0,
            problem: None,
        });
        if current.members.len() >= limits.max_sample_members {
            current.problem.get_or_insert(SampleProblem::TooManyMembers);
            return self.skip_member(entry, Skip::TooManyMembers);
        }
        let is_linked = entry.kind == EntryKind::Linked;
        let missing = if entry.kind == EntryKind::Sparse {
            Some(Missing::Sparse)
        } else if entry.size > limits.max_member_bytes
            || current.buffered.saturating_add(entry.size) > limits.max_sample_bytes
        {
            Some(Missing::TooLarge)
        } else if is_linked {
            Some(Missing::Link)
        } else {
            None
        };
        let mut data = Vec::new();
        let outcome = match missing {
            _ if is_linked => Ok(true),
            None => self.archive.read_data(entry.size, &mut data),
            Some(_) => self.archive.skip_data(entry.size),
        };
        if !self.check_complete(entry, outcome, |reader| {
            reader.counts.truncated += 1;
            reader.note_problem(SampleProblem::Truncated {
                extension: extension.clone(),
            });
            reader.finish_sample();
        })? {
            return Ok(());
        }
        if missing == Some(Missing::Sparse) {
            self.note_problem(SampleProblem::Sparse {
                extension: extension.clone(),
            });
        }
        self.counts.in_samples += 1;
        if let Some(current) = &mut self.current {
            current.buffered += data.len() as u64;
            current.extensions.insert(extension.to_lowercase());
            current.members.push(Member {
                extension,
                name: entry.name.clone(),
                offset: entry.offset,
                size: entry.size,
                data: missing.is_none().then_some(data),
                missing,
            });
        }
        Ok(())
    }

    fn skip_member(&mut self, entry: &Entry, why: Skip) -> Result<(), Fault> {
        let outcome = match entry.kind {
            EntryKind::Linked => Ok(true),
            _ => self.archive.skip_data(entry.size),
        };
        if let Err(Fault::Io(_)) = outcome {
            return outcome.map(drop);
        }
        self.counts.skipped += 1;
        self.events.push_back(Event::Skipped(Skipped {
            name: text(&entry.name),
            offset: entry.offset,
            bytes: entry.size,
            why,
        }));
        self.check_complete(entry, outcome, |reader| {
            reader.note_problem(SampleProblem::DamageAfter);
            reader.finish_sample();
        })
        .map(drop)
    }

    /// Returns whether a member's data was complete. Otherwise calls `on_damage`, then ends the shard.
    fn check_complete(
        &mut self,
        entry: &Entry,
        outcome: Result<bool, Fault>,
        on_damage: impl FnOnce(&mut Self),
    ) -> Result<bool, Fault> {
        let damage = match outcome {
            Ok(true) => return Ok(true),
            Ok(false) => self.archive.ends_inside_member(&text(&entry.name)),
            Err(Fault::Damage(damage)) => damage,
            Err(failure) => return Err(failure),
        };
        on_damage(self);
        self.finish_shard(Some(damage));
        Ok(false)
    }

    /// Records a problem. The first one is kept, except that a truncated member replaces any other.
    fn note_problem(&mut self, problem: SampleProblem) {
        if let Some(current) = &mut self.current {
            match problem {
                SampleProblem::Truncated { .. } => current.problem = Some(problem),
                _ => {
                    current.problem.get_or_insert(problem);
                }
            }
        }
    }

    fn finish_sample(&mut self) {
        if let Some(built) = self.current.take() {
            let key = text(&built.key);
            self.counts.samples += 1;
            self.events.push_back(Event::Sample(Sample {
                occurrence: self.ids.occurrence(&key),
                key,
                members: built.members,
                problem: built.problem,
            }));
        }
    }

    fn queue_notes(&mut self) {
        let notes = self.archive.take_notes();
        self.events.extend(notes.into_iter().map(Event::Note));
    }

    fn finish_shard(&mut self, damage: Option<Damage>) {
        self.queue_notes();
        self.events.extend(damage.map(Event::Damage));
        self.done = true;
    }
}

impl<R: Read> Iterator for ShardReader<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.done {
                return self.failure.take().map(Err);
            }
            match self.read_next() {
                Ok(()) => {}
                Err(Fault::Damage(damage)) => self.finish_shard(Some(damage)),
                Err(Fault::Io(failure)) => {
                    self.failure = Some(failure);
                    self.done = true;
                }
            }
        }
    }
}

/// Returns the key and extension of a member that can be part of a sample, or why it cannot.
fn classify(entry: &Entry) -> Result<(&[u8], &[u8]), Skip> {
    match entry.kind {
        EntryKind::File | EntryKind::Sparse | EntryKind::Linked => {}
        EntryKind::Directory => return Err(Skip::Directory),
        EntryKind::HardLink | EntryKind::Link => return Err(Skip::Link),
        EntryKind::Device => return Err(Skip::Device),
        EntryKind::Other => return Err(Skip::UnknownType),
        EntryKind::NameTooLong => return Err(Skip::NameTooLong),
        EntryKind::BadExtendedHeader => return Err(Skip::BadExtendedHeader),
    }
    let name = without_dot(&entry.name);
    if is_reserved(name) {
        return Err(Skip::Reserved);
    }
    split_key(name).ok_or_else(|| {
        if has_extension(name) {
            Skip::NoKey
        } else {
            Skip::NoExtension
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_unique_beside_literal_keys() {
        let mut ids = Ids::default();
        let given: Vec<u32> = ["a", "a#1", "a", "a", "a#1", "a#2", "b"]
            .iter()
            .map(|key| ids.occurrence(key))
            .collect();
        assert_eq!(given, [0, 0, 2, 3, 1, 1, 0]);
    }
}
