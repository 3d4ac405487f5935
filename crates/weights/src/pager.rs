//! Weights on their way between disk and memory, on threads of their own: read ahead of use, given up after it.
//!
//! A model larger than RAM is read again for every step. Left to itself, the system reads a page when it is touched,
//! and throws out what was not used for longest - which, going round in a circle, is what comes next. Whoever knows the
//! order of use does better: it asks for bytes some steps ahead, so that the disk never rests, and gives up what it
//! has used, so that nothing that stays has to go. All of that is advice: whatever the system does with it, the bytes
//! are the same.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::WeightBytes;

/// Bytes that are asked for between two looks at the queue.
const PIECE: usize = 8 << 20;

/// Three threads: one that reads in the order in which it was asked to, one that gives up (both take the processor's
/// time for every page, and a fast disk is faster than one thread), and one that reads what was only guessed while nothing
/// is asked for.
#[derive(Debug)]
pub struct Pager {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A request to read, to be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl From<u64> for Ticket {
    fn from(number: u64) -> Ticket {
        Ticket(number)
    }
}

impl From<Ticket> for u64 {
    fn from(ticket: Ticket) -> u64 {
        ticket.0
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    fetch: VecDeque<(Ticket, WeightBytes)>,
    guesses: VecDeque<WeightBytes>,
    /// The first one may be under way.
    evict: VecDeque<WeightBytes>,
    /// The last request that was made, and the last one that was passed on to the system.
    asked: Ticket,
    done: Ticket,
    stop: bool,
}

impl Pager {
    /// # Errors
    /// The system has no thread left.
    pub fn new() -> io::Result<Pager> {
        let mut pager = Pager { shared: Arc::new(Shared::default()), threads: Vec::new() };
        let threads: [(_, fn(&Shared)); 3] =
            [("read ahead", Shared::fetch), ("give up", Shared::evict), ("guess", Shared::guess)];
        for (name, run) in threads {
            let shared = pager.shared.clone();
            // If one fails, dropping the pager ends those before it.
            pager.threads.push(std::thread::Builder::new().name(name.into()).spawn(move || run(&shared))?);
        }
        Ok(pager)
    }

    /// Reads bytes into memory, after those asked for before.
    pub fn fetch(&self, bytes: WeightBytes) -> Ticket {
        let mut queue = self.shared.lock();
        queue.asked.0 += 1;
        let ticket = queue.asked;
        queue.fetch.push_back((ticket, bytes));
        self.shared.changed.notify_all();
        ticket
    }

    /// Reads bytes that may be asked for soon, one range after the other, while nothing is asked for.
    pub fn guess(&self, bytes: WeightBytes) {
        self.shared.lock().guesses.push_back(bytes);
        self.shared.changed.notify_all();
    }

    /// A guess was right: where it is still waiting, it is asked for.
    pub fn confirm(&self, bytes: &WeightBytes) -> Ticket {
        let mut queue = self.shared.lock();
        let place = queue.guesses.iter().position(|guess| guess.as_ptr_range() == bytes.as_ptr_range());
        let Some(guess) = place.and_then(|place| queue.guesses.remove(place)) else { return Ticket::default() };
        drop(queue);
        self.fetch(guess)
    }

    /// Gives back the guesses that are still waiting: they will not be read.
    pub fn call_off(&self) -> Vec<WeightBytes> {
        self.shared.lock().guesses.drain(..).collect()
    }

    /// Takes bytes out of memory. Where they are still waiting to be read, they are not read.
    pub fn evict(&self, bytes: WeightBytes) {
        let mut queue = self.shared.lock();
        // Of what is under way, the rest.
        let range = bytes.as_ptr_range();
        let goes = |waiting: &WeightBytes| range.contains(&waiting.as_ptr()) && waiting.as_ptr_range().end <= range.end;
        queue.fetch.retain(|(_, waiting)| !goes(waiting));
        queue.guesses.retain(|waiting| !goes(waiting));
        queue.evict.push_back(bytes);
        self.shared.changed.notify_all();
    }

    /// Waits until the system knows of this request and all before it. The disk may still be at it: whoever touches a
    /// page that is on its way waits for that page.
    pub fn wait(&self, ticket: Ticket) {
        let mut queue = self.shared.lock();
        while queue.done < ticket && !queue.stop {
            queue = self.shared.wait(queue);
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // They only give advice: a panic there has harmed nothing.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The queue is whole between any two statements, so a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn fetch(&self) {
        let mut queue = self.lock();
        while !queue.stop {
            let Some((ticket, bytes)) = queue.fetch.front().cloned() else {
                // Whatever was asked for was done or called off; guesses may go on.
                if queue.done != queue.asked {
                    queue.done = queue.asked;
                    self.changed.notify_all();
                }
                queue = self.wait(queue);
                continue;
            };
            if queue.evict.iter().any(|going| overlap(going, &bytes)) {
                queue = self.wait(queue);
                continue;
            }
            let now = PIECE.min(bytes.len());
            let rest = bytes.slice(now..bytes.len()).filter(|rest| !rest.is_empty());
            let last = rest.is_none();
            queue.fetch.pop_front();
            // Before the lock is given back, so that whoever calls it off meanwhile finds it.
            if let Some(rest) = rest {
                queue.fetch.push_front((ticket, rest));
            }
            drop(queue);
            if let Some(piece) = bytes.slice(0..now) {
                piece.will_need();
            }
            queue = self.lock();
            if last {
                queue.done = queue.done.max(ticket);
                self.changed.notify_all();
            }
        }
        self.changed.notify_all();
    }

    fn guess(&self) {
        let mut queue = self.lock();
        while !queue.stop {
            let going = |queue: &Queue, bytes| queue.evict.iter().any(|going| overlap(going, bytes));
            let ready = queue.guesses.front().is_some_and(|next| queue.fetch.is_empty() && !going(&queue, next));
            let Some(bytes) = ready.then(|| queue.guesses.pop_front()).flatten() else {
                queue = self.wait(queue);
                continue;
            };
            drop(queue);
            bytes.will_need();
            // Waits for the disk, so that what turns out wrong meanwhile is not on its way already.
            std::hint::black_box(bytes.last().copied());
            queue = self.lock();
        }
    }

    fn evict(&self) {
        let mut queue = self.lock();
        while !queue.stop {
            let Some(bytes) = queue.evict.front().cloned() else {
                queue = self.wait(queue);
                continue;
            };
            drop(queue);
            bytes.evict();
            queue = self.lock();
            // Others only add at the end.
            queue.evict.pop_front();
            self.changed.notify_all();
        }
    }
}

fn overlap(a: &WeightBytes, b: &WeightBytes) -> bool {
    let (a, b) = (a.as_ptr_range(), b.as_ptr_range());
    a.start < b.end && b.start < a.end
}
