package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"reflect"
	"sort"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

// table holds every type reachable from a kind.
type table struct {
	definitions map[string]common.OpenAPIDefinition
	models      map[string]reflect.Type // by model name
	kinds       map[schema.GroupVersionKind]reflect.Type
	order       []string
	index       map[string]int
}

// Types with a form of their own on the wire; the letters are the type words of schema.txt.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                     "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                 "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                 "fields",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                 "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":               "intorstring",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                  "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON": "json",
}

var forms = map[string]string{
	"JSONSchemaPropsOrArray":       "oneormany",
	"JSONSchemaPropsOrStringArray": "oneormany",
	"JSONSchemaPropsOrBool":        "boolorone",
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func newScheme() *runtime.Scheme {
	all := scheme.Scheme
	must(apiextensions.AddToScheme(all))
	must(apiregistration.AddToScheme(all))
	must(metav1.AddMetaToScheme(all))
	return all
}

func collect() *table {
	t := &table{
		definitions: map[string]common.OpenAPIDefinition{},
		models:      map[string]reflect.Type{},
		kinds:       map[schema.GroupVersionKind]reflect.Type{},
		index:       map[string]int{},
	}
	ref := func(path string) spec.Ref { return spec.MustCreateRef("#/definitions/" + path) }
	for name, definition := range openapi.GetOpenAPIDefinitions(ref) {
		t.definitions[friendly(name)] = definition
	}
	served := map[string]bool{"meta.k8s.io/v1": true}
	for _, list := range discovery() {
		served[list.GroupVersion] = true
	}
	for gvk, typ := range newScheme().AllKnownTypes() {
		if !served[gvk.GroupVersion().String()] {
			continue
		}
		t.kinds[gvk] = typ
		t.reach(typ)
	}
	for name := range t.models {
		t.order = append(t.order, name)
	}
	sort.Strings(t.order)
	for i, name := range t.order {
		t.index[name] = i
	}
	return t
}

// friendly turns a Go package path into the model name that OpenAPI documents use.
func friendly(name string) string {
	if !strings.Contains(name, "/") {
		return name
	}
	slash := strings.LastIndex(name, "/")
	first, rest, _ := strings.Cut(name[:slash], "/")
	domain := strings.Split(first, ".")
	for i, j := 0, len(domain)-1; i < j; i, j = i+1, j-1 {
		domain[i], domain[j] = domain[j], domain[i]
	}
	path := strings.Join(domain, ".")
	if rest != "" {
		path += "." + strings.ReplaceAll(rest, "/", ".")
	}
	return path + "." + name[slash+1:]
}

func fullName(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

// model is the name of a type in OpenAPI documents, which most types know themselves.
func model(t reflect.Type) string {
	if named, ok := reflect.New(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return named.OpenAPIModelName()
	}
	return friendly(fullName(t))
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// reach records a type and all it refers to.
func (t *table) reach(typ reflect.Type) {
	typ = deref(typ)
	if special[fullName(typ)] != "" {
		return
	}
	switch typ.Kind() {
	case reflect.Slice:
		if typ.Name() != "" && hasProto(typ) {
			t.models[model(typ)] = typ
			return
		}
		t.reach(typ.Elem())
	case reflect.Map:
		t.reach(typ.Elem())
	case reflect.Struct:
		if _, seen := t.models[model(typ)]; seen {
			return
		}
		t.models[model(typ)] = typ
		for i := range typ.NumField() {
			if jsonName(typ.Field(i)) != "-" {
				t.reach(typ.Field(i).Type)
			}
		}
	}
}

// hasProto tells named lists that are messages of their own (ExtraValue, Verbs) from plain ones.
func hasProto(typ reflect.Type) bool {
	_, ok := reflect.PointerTo(typ).MethodByName("Unmarshal")
	return ok
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func (t *table) word(typ reflect.Type) string {
	typ = deref(typ)
	if word := special[fullName(typ)]; word != "" {
		return word
	}
	switch typ.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32:
		return "int32"
	case reflect.Int64, reflect.Int:
		return "int64"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return "uint32"
	case reflect.Float64, reflect.Float32:
		return "double"
	case reflect.Interface:
		return "any"
	case reflect.Struct:
		return fmt.Sprintf("@%d", t.index[model(typ)])
	case reflect.Map:
		return "{}" + t.word(typ.Elem())
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		if typ.Name() != "" && hasProto(typ) {
			return fmt.Sprintf("@%d", t.index[model(typ)])
		}
		return "[]" + t.word(typ.Elem())
	}
	log.Fatalf("no word for %v", typ)
	return ""
}

func (t *table) writeSchema(w *bufio.Writer) {
	for _, name := range t.order {
		typ := t.models[name]
		line := "T " + name + " " + typ.Name()
		definition := t.definitions[name]
		if definition.Schema.Extensions["x-kubernetes-map-type"] == "atomic" {
			line += " atomic"
		}
		if typ.Kind() == reflect.Slice {
			fmt.Fprintln(w, line+" form=items")
			fmt.Fprintln(w, "F items 1 []string -")
			continue
		}
		if form := forms[typ.Name()]; form != "" {
			line += " form=" + form
		}
		fmt.Fprintln(w, line)
		t.writeFields(w, typ, definition.Schema)
	}
}

func (t *table) writeFields(w *bufio.Writer, typ reflect.Type, definition spec.Schema) {
	required := map[string]bool{}
	for _, name := range definition.Required {
		required[name] = true
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name := jsonName(f)
		if name == "-" && f.Tag.Get("protobuf") == "" || !f.IsExported() {
			continue
		}
		tag := f.Tag.Get("json")
		inline := strings.Contains(tag, ",inline") || f.Anonymous && name == ""
		if inline && deref(f.Type).Name() == "TypeMeta" {
			fmt.Fprintln(w, "F kind 0 string o")
			fmt.Fprintln(w, "F apiVersion 0 string o")
			continue
		}
		property := definition.Properties[name]
		fmt.Fprintln(w, t.fieldLine(f, name, inline, required[name], property))
	}
}

func (t *table) fieldLine(f reflect.StructField, name string, inline, required bool, property spec.Schema) string {
	tag := f.Tag.Get("json")
	number := "0"
	if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 1 {
		number = parts[1]
	}
	flags := ""
	flag := func(on bool, letter string) {
		if on {
			flags += letter
		}
	}
	flag(f.Type.Kind() == reflect.Pointer, "p")
	flag(inline, "n")
	flag(strings.Contains(tag, ",omitempty"), "o")
	flag(strings.Contains(tag, ",omitzero"), "z")
	flag(required, "r")
	extensions := property.Extensions
	flag(extensions["x-kubernetes-map-type"] == "atomic", "A")
	flag(extensions["x-kubernetes-list-type"] == "set", "S")
	flag(extensions["x-kubernetes-list-type"] == "map", "M")
	if flags == "" {
		flags = "-"
	}
	if name == "" {
		name = "-"
		if !inline {
			name = f.Name
		}
	}
	line := fmt.Sprintf("F %s %s %s %s", name, number, t.word(f.Type), flags)
	if keys, ok := extensions["x-kubernetes-list-map-keys"].([]interface{}); ok {
		words := []string{}
		for _, key := range keys {
			words = append(words, key.(string))
		}
		line += " keys=" + strings.Join(words, ",")
	}
	if key := f.Tag.Get("patchMergeKey"); key != "" {
		line += " mk=" + key
	}
	if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
		line += " ps=" + strategy
	}
	if len(property.Enum) > 0 {
		words := []string{}
		for _, value := range property.Enum {
			words = append(words, value.(string))
		}
		line += " e=" + strings.Join(words, "|")
	}
	if base := deref(f.Type); base.PkgPath() != "" && base.Kind() != reflect.Struct {
		line += " g=" + base.String()
	}
	if property.Default != nil {
		text, err := json.Marshal(property.Default)
		must(err)
		if s := string(text); s != "{}" && s != `""` && s != "0" && s != "false" {
			line += " d=" + s
		}
	}
	return line
}
