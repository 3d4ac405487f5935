//! Kernels on their way to the driver. They wait until somebody needs what they do, or until there are enough of them; what
//! resembles an earlier sequence, as every token resembles the one before, goes as a graph: one call instead of many, with
//! only those kernels told again whose arguments have changed.

use super::call::{Answer, check};
use super::card::Primary;
use crate::Launch;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{null, null_mut};

/// Kernels that go together. The GPU works on one segment while the next one is put together.
const SEGMENT: usize = 64;
/// Fewer are not worth a graph.
const LEAST: usize = 8;
/// Sequences that are remembered: a large model's token has some ten.
const MOST: usize = 64;

/// A kernel with its arguments, which lie in its sequence's words.
#[derive(Clone, PartialEq)]
struct Step {
    kernel: &'static str,
    function: sys::CUfunction,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    words: Range<usize>,
}

#[derive(Clone, Default)]
struct Sequence {
    steps: Vec<Step>,
    /// Arguments, aligned as their structs are.
    words: Vec<u64>,
}

/// A sequence that came before, and its graph if it came twice.
struct Known {
    sequence: Sequence,
    graph: Option<Graph>,
}

/// A graph whose nodes are a chain, as it was told last.
struct Graph {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    /// Bytes of the GPU's memory that were gone when it was ready.
    bytes: u64,
    nodes: Vec<sys::CUgraphNode>,
}

pub(super) struct Queue {
    waiting: Sequence,
    known: Vec<Known>,
    /// Where the search begins: after what came last.
    next: usize,
    /// What is forgotten next, once [`MOST`] are known.
    oldest: usize,
    /// No graph could be made: there is no memory for them.
    direct: bool,
}

impl Queue {
    pub fn new() -> Queue {
        Queue { waiting: Sequence::default(), known: Vec::new(), next: 0, oldest: 0, direct: false }
    }

    /// Adds a kernel; whether it is time for [`Queue::flush`].
    pub fn push(&mut self, function: sys::CUfunction, launch: &Launch<'_>) -> bool {
        let Sequence { steps, words } = &mut self.waiting;
        let first = words.len();
        let (whole, rest) = launch.arguments.as_chunks::<8>();
        words.extend(whole.iter().map(|bytes| u64::from_ne_bytes(*bytes)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words.push(u64::from_ne_bytes(last));
        }
        let Launch { kernel, grid, block, shared, .. } = *launch;
        steps.push(Step { kernel, function, grid, block, shared, words: first..words.len() });
        steps.len() >= SEGMENT
    }

    /// Bytes that graphs take.
    pub fn graph_bytes(&self) -> u64 {
        self.known.iter().filter_map(|known| known.graph.as_ref()).map(|graph| graph.bytes).sum()
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.waiting.steps.clear();
        self.waiting.words.clear();
    }

    /// Gives the driver what waits.
    ///
    /// # Safety
    /// The context is current; whatever the kernels reach through their arguments is allocated.
    pub unsafe fn flush(&mut self, stream: sys::CUstream, card: &Primary) -> Answer {
        if self.waiting.steps.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let result = unsafe {
            match self.find() {
                Some(index) => self.replay(index, stream, card),
                None => self.waiting.launch(stream),
            }
        };
        self.clear();
        result
    }

    /// What the waiting sequence resembles; a new one is remembered.
    fn find(&mut self) -> Option<usize> {
        if self.direct || self.waiting.steps.len() < LEAST {
            return None;
        }
        let count = self.known.len();
        let mut order = (0..count).map(|step| (self.next + step) % count);
        if let Some(index) = order.find(|index| self.known[*index].sequence.resembles(&self.waiting)) {
            return Some(index);
        }
        let new = Known { sequence: self.waiting.clone(), graph: None };
        if count < MOST {
            self.known.push(new);
        } else {
            self.known[self.oldest] = new;
            self.oldest = (self.oldest + 1) % MOST;
        }
        None
    }

    /// # Safety
    /// As [`Queue::flush`].
    unsafe fn replay(&mut self, index: usize, stream: sys::CUstream, card: &Primary) -> Answer {
        self.next = index + 1;
        let known = &mut self.known[index];
        // SAFETY: the caller's promise.
        let ready = unsafe {
            match &mut known.graph {
                Some(graph) => graph.update(&known.sequence, &self.waiting),
                None => Graph::new(&self.waiting, card).map(|graph| known.graph = Some(graph)),
            }
        };
        if ready.is_err() {
            // Whatever it was, without graphs everything goes as well; a lost GPU says so to the next call.
            self.direct = true;
            self.known.clear();
            // SAFETY: the caller's promise.
            return unsafe { self.waiting.launch(stream) };
        }
        known.sequence.clone_from(&self.waiting);
        let exec = known.graph.as_ref().map_or(null_mut(), |graph| graph.exec);
        // SAFETY: the graph is whole, its kernels' arguments are those that wait (the caller's promise).
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(exec, stream) })
    }
}

impl Sequence {
    /// The same kernels, most of them with the same arguments.
    fn resembles(&self, other: &Sequence) -> bool {
        let pairs = || self.steps.iter().zip(&other.steps);
        self.steps.len() == other.steps.len()
            && pairs().all(|(a, b)| a.function == b.function)
            && 2 * (0..self.steps.len()).filter(|step| self.differs(other, *step)).count() <= self.steps.len()
    }

    fn differs(&self, other: &Sequence, step: usize) -> bool {
        let (a, b) = (&self.steps[step], &other.steps[step]);
        a != b || self.words[a.words.clone()] != other.words[b.words.clone()]
    }

    fn arguments(&self, step: &Step) -> *mut c_void {
        self.words[step.words.clone()].as_ptr().cast_mut().cast()
    }

    /// Launches one kernel after the other.
    ///
    /// # Safety
    /// As [`Queue::flush`].
    unsafe fn launch(&self, stream: sys::CUstream) -> Answer {
        for step in &self.steps {
            let ([x, y, z], mut parameters) = (step.grid, [self.arguments(step)]);
            // SAFETY: the driver copies the arguments before it returns, as many bytes as the kernel's parameter has.
            let result = unsafe {
                let parameters = parameters.as_mut_ptr();
                sys::cuLaunchKernel(
                    step.function,
                    x,
                    y,
                    z,
                    step.block,
                    1,
                    1,
                    step.shared,
                    stream,
                    parameters,
                    null_mut(),
                )
            };
            check(step.kernel, result)?;
        }
        Ok(())
    }

    /// A kernel as graphs take it; `parameters` must outlive the use.
    fn node(&self, step: &Step, parameters: &mut [*mut c_void; 1]) -> sys::CUDA_KERNEL_NODE_PARAMS {
        parameters[0] = self.arguments(step);
        let [x, y, z] = step.grid;
        sys::CUDA_KERNEL_NODE_PARAMS {
            func: step.function,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: step.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: step.shared,
            kernelParams: parameters.as_mut_ptr(),
            extra: null_mut(),
            kern: null_mut(),
            ctx: null_mut(),
        }
    }
}

impl Graph {
    /// # Safety
    /// The context is current.
    unsafe fn new(sequence: &Sequence, card: &Primary) -> Result<Graph, crate::Failure> {
        let nodes = Vec::with_capacity(sequence.steps.len());
        let mut all = Graph { graph: null_mut(), exec: null_mut(), bytes: 0, nodes };
        let before = card.free_bytes();
        // SAFETY: pointers are to handles of the right kind; arguments are copied when a node is added, and live till then.
        unsafe {
            check("cuGraphCreate", sys::cuGraphCreate(&mut all.graph, 0))?;
            for step in &sequence.steps {
                let (mut node, mut parameters) = (null_mut(), [null_mut()]);
                let (before, count) = all.nodes.last().map_or((null(), 0), |node| (std::ptr::from_ref(node), 1));
                let kernel = sequence.node(step, &mut parameters);
                let added = sys::cuGraphAddKernelNode_v2(&mut node, all.graph, before, count, &kernel);
                check("cuGraphAddKernelNode", added)?;
                all.nodes.push(node);
            }
            let made = sys::cuGraphInstantiateWithFlags(&mut all.exec, all.graph, 0);
            check("cuGraphInstantiate", made)?;
        }
        all.bytes = before.zip(card.free_bytes()).map_or(0, |(before, after)| before.saturating_sub(after));
        Ok(all)
    }

    /// Tells it what has changed since `before`; launches that are under way are not touched by that.
    ///
    /// # Safety
    /// The context is current.
    unsafe fn update(&mut self, before: &Sequence, now: &Sequence) -> Answer {
        for (index, step) in now.steps.iter().enumerate().filter(|(index, _)| before.differs(now, *index)) {
            let mut parameters = [null_mut()];
            let kernel = now.node(step, &mut parameters);
            // SAFETY: the node is the graph's, and of the same function; arguments are copied.
            let set = unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.exec, self.nodes[index], &kernel) };
            check("cuGraphExecKernelNodeSetParams", set)?;
        }
        Ok(())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: both are ours, once; the driver keeps what runs until it has ended. Whoever drops us has the context current.
        unsafe {
            if !self.exec.is_null() {
                let _ = sys::cuGraphExecDestroy(self.exec);
            }
            if !self.graph.is_null() {
                let _ = sys::cuGraphDestroy(self.graph);
            }
        }
    }
}
