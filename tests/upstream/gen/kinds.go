package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Storage prefixes that are not the resource's name.
var segments = map[string]string{
	"/replicationcontrollers":            "controllers",
	"/endpoints":                         "services/endpoints",
	"/services":                          "services/specs",
	"/nodes":                             "minions",
	"networking.k8s.io/ingresses":        "ingress",
	"apiregistration.k8s.io/apiservices": "apiregistration.k8s.io/apiservices",
	"apiextensions.k8s.io/customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
}

// discovery reads the discovery documents that upstream publishes with its source.
func discovery() []metav1.APIResourceList {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	must(err)
	paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), "api", "discovery", "api*__*.json"))
	must(err)
	sort.Strings(paths)
	var lists []metav1.APIResourceList
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(err)
		var list metav1.APIResourceList
		must(json.Unmarshal(text, &list))
		if list.Kind == "APIResourceList" {
			lists = append(lists, list)
		}
	}
	return lists
}

func storageHash(gvk schema.GroupVersionKind) string {
	sum := sha256.Sum256([]byte(gvk.Group + "/" + gvk.Version + "/" + gvk.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

func dash(words []string) string {
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

func apiVersion(gvk schema.GroupVersionKind) string {
	return gvk.GroupVersion().String() + "/" + gvk.Kind
}

func writeKinds(w *bufio.Writer, t *table) {
	byHash := map[string]schema.GroupVersionKind{}
	for gvk := range t.kinds {
		byHash[storageHash(gvk)] = gvk
	}
	for _, list := range discovery() {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		must(err)
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") {
				continue
			}
			writeKind(w, t, gv, r, list.APIResources, byHash)
		}
	}
}

func writeKind(w *bufio.Writer, t *table, gv schema.GroupVersion, r metav1.APIResource, all []metav1.APIResource, byHash map[string]schema.GroupVersionKind) {
	scope := "C"
	if r.Namespaced {
		scope = "N"
	}
	served := "1"
	if strings.Contains(gv.Version, "alpha") || strings.Contains(gv.Version, "beta") {
		served = "0"
	}
	storage, segment := "-", "-"
	if r.StorageVersionHash != "" {
		// A hash of a version that is served no more (custom resource definitions keep one) stands for the version served.
		stored, ok := byHash[r.StorageVersionHash]
		if !ok {
			stored = gv.WithKind(r.Kind)
		}
		storage = apiVersion(stored)
		segment = r.Name
		if special, ok := segments[gv.Group+"/"+r.Name]; ok {
			segment = special
		}
	}
	gvk := gv.WithKind(r.Kind)
	name := model(t.kinds[gvk])
	fmt.Fprintf(w, "K %s %s %s %s %s %s %s %s %s %s %s %s\n", gv, r.Kind, r.Name, r.SingularName, scope, served,
		name, dash(r.ShortNames), dash(r.Categories), dash(r.Verbs), storage, segment)
	for _, sub := range all {
		parent, rest, ok := strings.Cut(sub.Name, "/")
		if !ok || parent != r.Name {
			continue
		}
		kind := schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
		if kind.Version == "" {
			kind.Group, kind.Version = gv.Group, gv.Version
		}
		fmt.Fprintf(w, "S %s %s %s\n", rest, apiVersion(kind), dash(sub.Verbs))
	}
}
