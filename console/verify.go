package console

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// Verify asks the sources as two scrapes would and tells everything that is wrong with what they give: names, units and
// help as Prometheus wants them, series given twice, label names, help or kinds that differ within a name, histograms that
// are none, counters that went down in between. It is for the tests of whoever writes a source.
func Verify(sources ...Source) error {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(collector(sources)); err != nil {
		return err
	}
	first, err := r.Gather()
	if err != nil {
		return err
	}
	second, err := r.Gather()
	if err != nil {
		return err
	}
	problems, err := promlint.NewWithMetricFamilies(second).Lint()
	if err != nil {
		return err
	}
	var all []error
	for _, p := range problems {
		all = append(all, fmt.Errorf("%s: %s", p.Metric, p.Text))
	}
	for _, family := range second {
		all = append(all, sameLabels(family))
	}
	return errors.Join(append(all, neverDown(first, second))...)
}

// sameLabels finds series of one name with different label names.
func sameLabels(family *dto.MetricFamily) error {
	names := func(m *dto.Metric) (s string) {
		for _, l := range m.GetLabel() {
			s += l.GetName() + ","
		}
		return s
	}
	for _, m := range family.GetMetric() {
		if a, b := names(family.GetMetric()[0]), names(m); a != b {
			return fmt.Errorf("%s: series with the labels %q and %q", family.GetName(), a, b)
		}
	}
	return nil
}

// neverDown finds counters and histograms that are smaller at the second look.
func neverDown(first, second []*dto.MetricFamily) error {
	counts := func(families []*dto.MetricFamily) map[string]float64 {
		m := map[string]float64{}
		for _, f := range families {
			for _, s := range f.GetMetric() {
				key := fmt.Sprint(f.GetName(), s.GetLabel())
				switch f.GetType() {
				case dto.MetricType_COUNTER:
					m[key] = s.GetCounter().GetValue()
				case dto.MetricType_HISTOGRAM:
					m[key] = float64(s.GetHistogram().GetSampleCount())
				}
			}
		}
		return m
	}
	before := counts(first)
	for key, n := range counts(second) {
		if n < before[key] {
			return fmt.Errorf("%s: went from %v down to %v", key, before[key], n)
		}
	}
	return nil
}
