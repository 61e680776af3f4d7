//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// curve is a target's rate over a number that grows.
type curve struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// The plot's size and margins, in pixels.
const (
	plotWidth, plotHeight = 640, 320
	plotLeft, plotTop     = 70, 30
)

// plot draws curves as SVG, the x axis logarithmic, unless nobody wants it.
func (r *report) plot(file string, wanted bool, of string, curves []curve) error {
	if !wanted {
		return nil
	}
	return os.WriteFile(file, []byte(drawing(of, curves)), 0o644)
}

func drawing(of string, curves []curve) string {
	least, most, highest := math.Inf(1), math.Inf(-1), 0.0
	var marks []float64
	for _, c := range curves {
		for _, p := range c.points {
			least, most, highest = min(least, p.x), max(most, p.x), max(highest, p.y)
			marks = append(marks, p.x)
		}
	}
	slices.Sort(marks)
	unit := math.Pow(10, math.Floor(math.Log10(max(1, highest))))
	top := math.Ceil(highest/unit) * unit
	x := func(v float64) float64 {
		if most == least {
			return plotLeft
		}
		return plotLeft + (plotWidth-2*plotLeft)*math.Log(v/least)/math.Log(most/least)
	}
	y := func(v float64) float64 { return plotTop + (plotHeight-2*plotTop)*(1-v/top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n"+`<text x="4" y="16">transactions each second, by number of %s</text>`+"\n", of)
	for _, v := range []float64{0, top / 2, top} {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%[3]v" stroke="#ddd"/><text x="%[4]d" y="%.1f" text-anchor="end">%.0f</text>`+"\n",
			plotLeft, plotWidth-plotLeft, y(v), plotLeft-6, y(v)+4, v)
	}
	for _, v := range slices.Compact(marks) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f</text>`+"\n", x(v), plotHeight-10, v)
	}
	colours := []string{"#888", "#0a6ebd", "#c0392b", "#27ae60"}
	for i, c := range curves {
		var path []string
		for _, p := range c.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(p.x), y(p.y)))
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/><text x="%d" y="%d" fill="%[2]s">%[5]s</text>`+"\n",
			strings.Join(path, " "), colour, plotWidth/2, plotTop+16*(i+1), c.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
