"""The parity verdict: does a run follow its reference, metric by metric, and if not, since which step and why.

**The question.** Reference runs are seeds of one healthy configuration. A run is at parity with them when it could be
one more seed. This does not mean that two runs are equal; the width of the band is the distance between seeds.

**The model.** In the scale of a metric (linear, or logarithmic where noise is a share of the value: clip rate, KL,
entropy) the value of run i at step t is f(t + l_i) + g_i(t) + e_i(t): a trend that all seeds share, whatever its shape,
which may come up to `lag` steps earlier or later; a deviation of the seed, which may stay from the first step to the
last, with one spread over the run; noise of the step, correlated or not. Runs are compared at the same steps.

**The statistic.** M(t) is the mean of the run over the last `window` steps; C(t) the mean over the references of the
same. The means are trimmed, without the highest and the lowest fifth of a window, so that one wild step does not carry
every window that it is in. The run is outside the band at t when M(t) is more than `half` above the highest, or below
the lowest, of C over `lag` steps before and after.

**The spread.** s0 is the rule's usual `spread` over seeds of a window's mean. With k references the variance of M - C
is (1 + 1/k) (s^2 + v): s of the seeds, v of the noise. v is measured: the variance of a window's mean under a
moving-block bootstrap of the references' residuals around a running line (Kuensch 1989, Ann. Stat. 17:1217). s is
measured from several references as the pooled sample variance of their window means less v, and is worth k - 1 degrees
of freedom, however many windows there are: an offset that a seed keeps is one draw, not one a window. It is never taken
to be less than s0. From one reference it cannot be measured, and is s0; the report says so.

**The width.** half^2 = (1 + 1/k) (q^2 max(s0, s)^2 + z^2 v). z is the quantile of the normal distribution at a / (parts
x windows of a grid), q that of |D| / max(s0, S) at a / (parts x stretches of 100 steps) *in the worst case of a true
spread of up to `reach` s0* (`console.parity.width`). a is .7 alpha; each metric is a part of it, and all names of the
mismatch share one. Any `window` windows in a row hold the end of one window of a fixed grid, so the share of false
alarms of the bands of a *whole verdict* is at most a (Bonferroni), whatever the correlation between windows and between
metrics, for seeds up to `reach` times the rule's spread apart. Further apart is outside the model; several references
show it, and the report then says so. Simulated: tests/stats/parity.py.

**The change.** A band that has to hold seeds of `reach` s0 is wide: with one reference a halved entropy is inside it.
But a run that *changes* against its references is seen without any belief about seeds, because an offset that it keeps
is no change, and what moves by itself is measured in the run: a self-normalised statistic whose limits hold up to a
random walk (`console.parity.change`). It has .3 alpha, split like the band's. A change counts if it leads away from the
references, on a side that counts, and by at least `reach` s0 sqrt(1 + 1/k) or the tolerance. A seed that by itself goes
further than that at once, and stays there, is outside the model.

**The rule.** A run is out of the band for good from a step on when it is outside on one side for `window` windows in a
row, or from the step of a change on. One excursion of noise does neither. What is shown as `distance` is the same
quantity: the level that was held for `window` windows, in half-widths of the band, or the change in shares of its
limit, whichever is larger. A stretch far outside that is too short is named as a burst.

**What is missing.** A step that a run reported without the metric is missing. Here and there it does no harm; a metric
that stops, or has a hole, is "not enough data" or fails, and never passes (`console.parity.alignment`).

**Power.** A pass says what it would have seen: the smallest shift over the last half of the steps that would have
failed, from the run's own data, and the smallest offset from the first step on, which only the band sees. Where the
former is more than the rule's `effect`, there is not enough data.

**After a switch.** A repaired run starts from weights that went wrong and needs time to return to the band, so from the
step of the switch on being outside is not a failure by itself. It passes if it came back and then stayed inside for
`hold` steps up to the end. The step of its return is reported.
"""
