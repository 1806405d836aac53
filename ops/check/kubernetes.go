// Package check checks what a broker is deployed with: the manifests for Kubernetes, the files for
// Compose, and the Dockerfile. It uses the code by which Kubernetes, Compose and BuildKit read them.
package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	podsecurity "k8s.io/pod-security-admission/api"
	podsecuritypolicy "k8s.io/pod-security-admission/policy"
)

// Refuses fields that a type does not have, and fields that are given twice.
var strict = func() runtime.Decoder {
	utilruntime.Must(monitoring.AddToScheme(legacyscheme.Scheme))
	return serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// ReadManifests returns the objects of a file of manifests, or what Kubernetes would refuse in it.
func ReadManifests(text []byte) ([]runtime.Object, error) {
	var objects []runtime.Object
	var problems []error
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, errors.Join(problems...)
		}
		if err != nil {
			return nil, err
		}
		object, kind, err := strict.Decode(document, nil, nil)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if err := validate(object); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", kind.Kind, err))
		}
		objects = append(objects, object)
	}
}

// Validates an object as the API server does when it is created.
func validate(object runtime.Object) error {
	if _, ok := object.(*monitoring.ServiceMonitor); ok {
		// Its validation is its type.
		return nil
	}
	complete := object.DeepCopyObject()
	legacyscheme.Scheme.Default(complete)
	internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(complete, runtime.InternalGroupVersioner)
	if err != nil {
		return err
	}
	switch it := internal.(type) {
	case *apps.Deployment:
		it.Namespace = "default"
		options := podutil.GetValidationOptionsFromPodTemplate(&it.Spec.Template, nil)
		problems := appsvalidation.ValidateDeployment(it, options)
		return errors.Join(problems.ToAggregate(), restricted(object.(*appsv1.Deployment)))
	case *core.Service:
		it.Namespace = "default"
		return corevalidation.ValidateServiceCreate(it).ToAggregate()
	case *core.Secret:
		it.Namespace = "default"
		return corevalidation.ValidateSecret(it).ToAggregate()
	case *policy.PodDisruptionBudget:
		it.Namespace = "default"
		options := policyvalidation.PodDisruptionBudgetValidationOptions{}
		return policyvalidation.ValidatePodDisruptionBudget(it, options).ToAggregate()
	default:
		return fmt.Errorf("nothing here validates a %T", internal)
	}
}

// Checks a pod against the strictest of Kubernetes' Pod Security Standards.
func restricted(deployment *appsv1.Deployment) error {
	evaluator, err := podsecuritypolicy.NewEvaluator(podsecuritypolicy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	pod := &deployment.Spec.Template
	result := podsecuritypolicy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
	if !result.Allowed {
		return fmt.Errorf("violates the level restricted: %s", result.ForbiddenDetail())
	}
	return nil
}
