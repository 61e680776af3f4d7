package main

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// junitResults reads a report in JUnit's XML, as pytest writes it (several test suites) or JUnit's own launcher (one).
// Where one name is reported more than once (a test and its teardown), the worst outcome counts.
func junitResults(text []byte) (results, error) {
	type said struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type cases []struct {
		Class   string `xml:"classname,attr"`
		Name    string `xml:"name,attr"`
		Failure *said  `xml:"failure"`
		Error   *said  `xml:"error"`
		Skipped *said  `xml:"skipped"`
	}
	var report struct {
		Suites []struct {
			Cases cases `xml:"testcase"`
		} `xml:"testsuite"`
		Cases cases `xml:"testcase"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("JUnit report: %w", err)
	}
	all := report.Cases
	for _, suite := range report.Suites {
		all = append(all, suite.Cases...)
	}
	found := make(results)
	for _, c := range all {
		name, one := strings.Trim(c.Class+"."+c.Name, "."), result{outcome: passed}
		switch {
		case c.Failure != nil:
			one = result{failed, c.Failure.Message + "\n" + c.Failure.Text}
		case c.Error != nil:
			one = result{failed, c.Error.Message + "\n" + c.Error.Text}
		case c.Skipped != nil:
			one.outcome = skipped
		}
		if before, ok := found[name]; !ok || before.outcome != failed {
			found[name] = one
		}
	}
	return found, nil
}
