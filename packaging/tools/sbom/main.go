// Sbom writes a CycloneDX 1.5 bill of materials of a Go binary, from the build information in it: sbom BINARY VERSION > sbom.cdx.json.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY VERSION")
		os.Exit(2)
	}
	out, err := bill(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
	fmt.Println(string(out))
}

func bill(binary, version string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w; set it to the commit's time in seconds", err)
	}
	main := component{Type: "application", Ref: "fieldagent", Name: "fieldagent", Version: version, PURL: "pkg:generic/fieldagent@" + version, Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || s.Key == "CGO_ENABLED" || s.Key == "-tags" {
			main.Properties = append(main.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	components := []component{goModule("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "")}
	uses := dependency{Ref: "fieldagent", DependsOn: []string{components[0].Ref}}
	for _, d := range info.Deps {
		c := moduleOf(d)
		components = append(components, c)
		uses.DependsOn = append(uses.DependsOn, c.Ref)
	}
	return json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"serialNumber": fmt.Sprintf("urn:uuid:%x-%x-4%03x-8%03x-%x", sum[:4], sum[4:6], uint16(sum[6])<<4|uint16(sum[7])>>4, uint16(sum[8])<<4|uint16(sum[9])>>4, sum[10:16]),
		"metadata":     map[string]any{"timestamp": time.Unix(epoch, 0).UTC().Format(time.RFC3339), "component": main},
		"components":   components,
		"dependencies": []dependency{uses},
	}, "", "  ")
}

func moduleOf(d *debug.Module) component {
	if d.Replace != nil {
		d = d.Replace
	}
	return goModule(d.Path, d.Version, d.Sum)
}

func goModule(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + version
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
