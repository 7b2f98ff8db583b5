-- Prints the figures of a run as one line of JSON, for a program to read.

done = function(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"seconds":%.6f,"requests":%d,"errors":%d,"p50_us":%.1f,"p90_us":%.1f,"p99_us":%.1f}\n',
      summary.duration / 1e6,
      summary.requests,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50),
      latency:percentile(90),
      latency:percentile(99)))
end
