//! Fetches what is missing of one file: segments in ascending order over several lanes.
//!
//! Ascending, because a file system without sparse files (NTFS by default) fills every gap before a write with zeros.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::Sender;

use super::meter::Meter;
use super::ranges::RangeSet;
use super::writer::Chunk;
use crate::HubError;
use crate::backoff::Backoff;
use crate::http::transport_error;
use crate::remote::{Part, RemoteFile};

/// Failures in a row, none of them a matter of waiting, after which the server is believed.
const TRIES_AGAINST_REFUSAL: u32 = 3;

/// How a file is fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    pub parallel: usize,
    /// Bytes of one request.
    pub segment: u64,
    /// Failures of a lane in a row, while no other lane receives a byte either, after which a download gives up.
    pub tries: u32,
    pub backoff: Backoff,
}

struct Segment {
    range: Range<u64>,
    /// Failures since the last byte arrived, on any lane.
    failures: u32,
    /// [`Meter::arrived`] at the last failure.
    mark: u64,
    pause: Option<Duration>,
}

enum Stopped {
    Failed(HubError),
    /// The server sends whole files only.
    IgnoresRange,
}

pub(crate) struct Fetch<'a> {
    pub remote: &'a RemoteFile,
    pub meter: &'a Meter,
    pub lanes: Lanes,
    pub sink: Sender<Chunk>,
}

impl Fetch<'_> {
    /// Sends everything that `have` lacks to the sink.
    pub async fn run(&self, mut have: RangeSet) -> Result<(), HubError> {
        let size = self.remote.size;
        let mut queue = self.segments(&have);
        let mut lanes = self.lanes.parallel.max(1);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < lanes
                && let Some(segment) = queue.pop_front()
            {
                running.push(self.lane(segment));
            }
            let Some((mut segment, received, stopped)) = running.next().await else { break };
            have.insert(segment.range.start..segment.range.start + received);
            segment.range.start += received;
            match stopped {
                Ok(()) => {}
                Err(Stopped::IgnoresRange) => {
                    drop(running);
                    return self.run_whole(have).await;
                }
                Err(Stopped::Failed(error)) => {
                    if matches!(error, HubError::RateLimited { .. }) {
                        lanes = (lanes / 2).max(1);
                    }
                    self.retry_later(&mut segment, error)?;
                    queue.push_front(segment);
                }
            }
        }
        match have.missing(size).first() {
            None => Ok(()),
            Some(gap) => Err(self.remote.nonsense(format!("bytes {}-{} did not arrive", gap.start, gap.end))),
        }
    }

    /// For a server without ranges: one request from the start, of which only the missing tail is kept; again from the
    /// start after a cut.
    async fn run_whole(&self, mut have: RangeSet) -> Result<(), HubError> {
        let size = self.remote.size;
        let mut rest = Segment::new(0..size);
        while let Some(gap) = have.missing(size).first().cloned() {
            rest.range = gap.start..size;
            let (segment, received, stopped) = self.whole_lane(rest).await;
            rest = segment;
            have.insert(rest.range.start..rest.range.start + received);
            if let Err(error) = stopped {
                self.retry_later(&mut rest, error)?;
            }
        }
        Ok(())
    }

    fn segments(&self, have: &RangeSet) -> VecDeque<Segment> {
        let step = self.lanes.segment.max(1);
        let gaps = have.missing(self.remote.size).into_iter();
        let cut = |gap: Range<u64>| {
            let starts = std::iter::successors(Some(gap.start), move |at| at.checked_add(step));
            starts
                .take_while(move |at| *at < gap.end)
                .map(move |at| Segment::new(at..gap.end.min(at.saturating_add(step))))
        };
        gaps.flat_map(cut).collect()
    }

    /// Notes a failure: either the segment waits before its next try, or the download ends with the error.
    fn retry_later(&self, segment: &mut Segment, error: HubError) -> Result<(), HubError> {
        let arrived = self.meter.arrived();
        if arrived != segment.mark {
            (segment.mark, segment.failures) = (arrived, 0);
        }
        segment.failures += 1;
        let tries = match &error {
            e if e.is_transient() => self.lanes.tries,
            HubError::Server { status: 401 | 403, .. } | HubError::Protocol { .. } => TRIES_AGAINST_REFUSAL,
            _ => return Err(error),
        };
        if segment.failures >= tries {
            return Err(error);
        }
        segment.pause = Some(self.lanes.backoff.pause(segment.failures, &error));
        tracing::debug!("download lane pauses: {error}");
        Ok(())
    }

    async fn pause(&self, segment: &mut Segment) {
        if let Some(pause) = segment.pause.take() {
            self.meter.pausing_until(Instant::now() + pause);
            tokio::time::sleep(pause).await;
        }
    }

    async fn lane(&self, mut segment: Segment) -> (Segment, u64, Result<(), Stopped>) {
        self.pause(&mut segment).await;
        let _active = self.meter.active();
        let mut received = 0;
        let stopped = match self.remote.open(segment.range.start, segment.range.end).await {
            Err(error) => Err(Stopped::Failed(error)),
            Ok((url, Part::Range(response))) => {
                self.stream(&url, response, 0, segment.range.clone(), &mut received).await.map_err(Stopped::Failed)
            }
            Ok((_, Part::Whole(_))) => Err(Stopped::IgnoresRange),
        };
        (segment, received, stopped)
    }

    async fn whole_lane(&self, mut segment: Segment) -> (Segment, u64, Result<(), HubError>) {
        self.pause(&mut segment).await;
        let _active = self.meter.active();
        let mut received = 0;
        let Range { start, end } = segment.range;
        let stopped = match self.remote.open(start, end).await {
            Err(error) => Err(error),
            // It has thought better of it.
            Ok((url, Part::Range(response))) => self.stream(&url, response, 0, start..end, &mut received).await,
            Ok((url, Part::Whole(response))) => self.stream(&url, response, start, start..end, &mut received).await,
        };
        (segment, received, stopped)
    }

    /// Sends the body, after its first `skip` bytes, to the sink as the bytes of `range`; counts them in `received`.
    async fn stream(
        &self,
        url: &url::Url,
        mut response: reqwest::Response,
        mut skip: u64,
        range: Range<u64>,
        received: &mut u64,
    ) -> Result<(), HubError> {
        let wanted = range.end - range.start;
        while *received < wanted {
            let chunk = response.chunk().await.map_err(|e| transport_error(url, e))?;
            let Some(mut bytes) = chunk else {
                let host = url.host_str().unwrap_or_default().to_owned();
                return Err(HubError::Interrupted { host, detail: "the answer ended early".into() });
            };
            let skipped = skip.min(bytes.len() as u64);
            skip -= skipped;
            let _ = bytes.split_to(skipped as usize);
            bytes.truncate((wanted - *received).min(bytes.len() as u64) as usize);
            if bytes.is_empty() {
                continue;
            }
            let (offset, len) = (range.start + *received, bytes.len() as u64);
            if self.sink.send(Chunk { offset, bytes }).await.is_err() {
                // The writer has stopped and says why when it is waited for.
                return Err(HubError::Cancelled);
            }
            *received += len;
            self.meter.add_arrived(len);
        }
        Ok(())
    }
}

impl Segment {
    fn new(range: Range<u64>) -> Segment {
        Segment { range, failures: 0, mark: 0, pause: None }
    }
}
